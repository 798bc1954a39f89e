"""Few-shot documents (`input => output` lines) and the prompt files that measure what was learned of them."""

from __future__ import annotations

from pathlib import Path

from minigen.files import replacing
from minigen.weights.synthetic.grammar import Draw, pick, stream
from minigen.weights.synthetic.pools import Pair, number
from minigen.weights.synthetic.tasks import TASKS

# How often a task is drawn: what is only in the examples more often than what is a fact.
WEIGHTS = {
    "cipher": 8, "language": 4, "labels": 5, "frame": 3, "constant": 4, "copy": 4, "reverse": 4, "first-word": 3,
    "last-word": 3, "capitalize": 2, "twice": 2, "sums": 2, "counting": 2,
}  # fmt: skip
_DRAWN = tuple(name for name in TASKS for _ in range(WEIGHTS.get(name, 1)))
# What goes before the input, between input and output, and between the blocks.
_ARROW = ("", " => ", "\n")
LAYOUTS = (_ARROW,) * 12 + (
    ("", " -> ", "\n"), ("", " -> ", "\n"), ("", " = ", "\n"), ("", ": ", "\n"), ("Q: ", "\nA: ", "\n"), ("Q: ",
    "\nA: ", "\n\n"),
    ("Q: ", " A: ", "\n"), ("input: ", "\noutput: ", "\n"), ("Input: ", "\nOutput: ", "\n\n"), ("input: ",
    " output: ", "\n"),
)  # fmt: skip
ONLY_EXAMPLES = ("cipher",)  # repeats are wanted: the mapping stands nowhere else


def pairs_of(draw: Draw, name: str, shots: int, held: bool = False) -> tuple[str, list[Pair]]:
    """A description of the task and `shots` pairs of one mapping; repeated inputs only where the task is a look-up."""
    description, following = TASKS[name](draw, held)
    found: list[Pair] = []
    seen: set[str] = set()
    for _ in range(12 * shots):
        pair = following()
        if pair[0] in seen and name not in (*ONLY_EXAMPLES, "language"):
            continue
        seen.add(pair[0])
        found.append(pair)
        if len(found) == shots:
            break
    return description, found


def layout(pairs: list[Pair], form: tuple[str, str, str], description: str = "") -> str:
    before, between, after = form
    text = after.join(f"{before}{a}{between}{b}" for a, b in pairs)
    return f"{description}\n{text}" if description else text


def parts(seed: int, index: int) -> tuple[str, list[Pair], str]:
    """The task, pairs and text of document `index`."""
    draw = stream(seed, "fewshot", index).random
    name = pick(draw, _DRAWN)
    shots = number(draw, 8, 16) if name in ("cipher", "language") else number(draw, 3, 16)
    description, found = pairs_of(draw, name, shots)
    form = LAYOUTS[int(draw() * len(LAYOUTS))]
    return name, found, layout(found, form, description if draw() < 0.22 else "")


def fewshot(seed: int, index: int) -> str:
    """Few-shot document `index` of `seed`."""
    return parts(seed, index)[2]


# Evaluation: task -> (shots to measure, examples, items). A table, or a language, needs all of it in the examples.
EVALUATED = {
    "copy": ([0, 1, 2, 4, 8], 8, 60), "reverse": ([0, 1, 2, 4, 8], 8, 60), "first-word": ([0, 1, 2, 4, 8], 8, 60),
    "last-word": ([0, 1, 2, 4, 8], 8, 60), "capitalize": ([0, 1, 2, 4, 8], 8, 60), "plural": ([0, 1, 2, 4, 8], 8, 30),
    "past": ([0, 1, 2, 4], 4, 0), "frame": ([0, 1, 2, 4, 8], 8, 30), "labels": ([0, 2, 4, 8], 8, 12),
    "cipher": ([0, 8, 16], 16, 8),
    "constant": ([0, 1, 2, 4, 8], 8, 40), "language": ([0, 4, 8, 16], 16, 9),
}  # fmt: skip


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def prompt_file(seed: int, name: str) -> str:
    """A prompt file on held-out words, with a mapping that no training document has: its own stream draws it."""
    shots, examples, items = EVALUATED[name]
    draw = stream(seed, "evaluation", list(EVALUATED).index(name)).random
    _, found = pairs_of(draw, name, examples + (items or 40), held=True)
    lookup = name in ("cipher", "language")
    if lookup:
        asked = list(dict.fromkeys(found))
    else:
        examples = min(examples, len(found) // 2)
        shots = [n for n in shots if n <= examples]
        asked = found[examples:]
    lines = [
        f"# The task {name!r} of the generator, on words that its training documents do not have.",
        "format = 1", 'template = "{input} =>"', "", "[generate]", "max_tokens = 16", 'stop = ["\\n"]', "", "[shots]",
        f"n = {shots}",
    ]  # fmt: skip
    for table, rows in (("examples", found[:examples]), ("items", asked)):
        for a, b in rows:
            lines += ["", f"[[{table}]]", f"input = {_quote(a)}", f"output = {_quote(b)}"]
    return "\n".join(lines) + "\n"


def write_evaluation(seed: int, folder: Path) -> None:
    """All prompt files, as `folder`/TASK.prompt.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in EVALUATED:
        with replacing(folder / f"{name}.prompt.toml") as beside:
            beside.write_text(prompt_file(seed, name), encoding="utf-8", newline="\n")


__all__ = ["fewshot", "parts", "prompt_file", "write_evaluation"]
