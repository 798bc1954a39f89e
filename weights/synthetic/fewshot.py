"""Few-shot documents (`input => output` lines), and prompt files that measure what they teach."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from minigen.files import replacing
from minigen.weights.synthetic.grammar import Draw, pick, stream
from minigen.weights.synthetic.pools import Pair, number
from minigen.weights.synthetic.tasks import TASKS

# How often a task counts in a draw (1 if not listed): a mapping that only the examples show counts
# more than a fact.
WEIGHTS = {
    "cipher": 8,
    "language": 4,
    "labels": 5,
    "frame": 3,
    "constant": 4,
    "copy": 4,
    "reverse": 4,
    "first-word": 3,
    "last-word": 3,
    "capitalize": 2,
    "twice": 2,
    "sums": 2,
    "counting": 2,
}
# What goes before the input, between input and output, and between the pairs.
_ARROW = ("", " => ", "\n")
LAYOUTS = (
    *(_ARROW,) * 12,
    ("", " -> ", "\n"),
    ("", " -> ", "\n"),
    ("", " = ", "\n"),
    ("", ": ", "\n"),
    ("Q: ", "\nA: ", "\n"),
    ("Q: ", "\nA: ", "\n\n"),
    ("Q: ", " A: ", "\n"),
    ("input: ", "\noutput: ", "\n"),
    ("Input: ", "\nOutput: ", "\n\n"),
    ("input: ", " output: ", "\n"),
)
# Tasks whose mapping must stand in the examples as a whole, so that inputs are repeated.
LOOK_UP_TASKS = ("cipher", "language")
# Evaluated task -> (numbers of shots to measure, examples, items; 0 items: what is left over).
EVALUATED = {
    "copy": ([0, 1, 2, 4, 8], 8, 60),
    "reverse": ([0, 1, 2, 4, 8], 8, 60),
    "first-word": ([0, 1, 2, 4, 8], 8, 60),
    "last-word": ([0, 1, 2, 4, 8], 8, 60),
    "capitalize": ([0, 1, 2, 4, 8], 8, 60),
    "plural": ([0, 1, 2, 4, 8], 8, 30),
    "past": ([0, 1, 2, 4], 4, 0),
    "frame": ([0, 1, 2, 4, 8], 8, 30),
    "labels": ([0, 2, 4, 8], 8, 12),
    "cipher": ([0, 8, 16], 16, 8),
    "constant": ([0, 1, 2, 4, 8], 8, 40),
    "language": ([0, 4, 8, 16], 16, 9),
}


def _tasks_by_weight() -> tuple[str, ...]:
    names: list[str] = []
    for name in TASKS:
        names += [name] * WEIGHTS.get(name, 1)
    return tuple(names)


_WEIGHTED_TASKS = _tasks_by_weight()


def pairs_of(draw: Draw, name: str, shots: int, held_out: bool = False) -> tuple[str, list[Pair]]:
    """A task's description and up to `shots` pairs of one mapping.

    Inputs are repeated only if the task is to look something up. A task with few words gives fewer
    pairs.
    """
    description, next_pair = TASKS[name](draw, held_out)
    pairs: list[Pair] = []
    seen: set[str] = set()
    for _ in range(12 * shots):
        pair = next_pair()
        if pair[0] in seen and name not in LOOK_UP_TASKS:
            continue
        seen.add(pair[0])
        pairs.append(pair)
        if len(pairs) == shots:
            break
    return description, pairs


def layout(pairs: list[Pair], form: tuple[str, str, str], description: str = "") -> str:
    """The pairs as text in one of `LAYOUTS`, after the description if there is one."""
    before, between, after = form
    text = after.join(f"{before}{given}{between}{output}" for given, output in pairs)
    if description:
        return f"{description}\n{text}"
    return text


def parts(seed: int, index: int) -> tuple[str, list[Pair], str]:
    """The task, pairs and text of document `index`."""
    draw = stream(seed, "fewshot", index).random
    name = pick(draw, _WEIGHTED_TASKS)
    fewest = 8 if name in LOOK_UP_TASKS else 3
    description, pairs = pairs_of(draw, name, number(draw, fewest, 16))
    form = LAYOUTS[int(draw() * len(LAYOUTS))]
    if draw() >= 0.22:
        description = ""
    return name, pairs, layout(pairs, form, description)


def fewshot(seed: int, index: int) -> str:
    """Few-shot document `index` of `seed`."""
    return parts(seed, index)[2]


# -- Evaluation --
def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _tables(name: str, pairs: Iterable[Pair]) -> list[str]:
    lines = []
    for given, output in pairs:
        lines += ["", f"[[{name}]]", f"input = {_quote(given)}", f"output = {_quote(output)}"]
    return lines


def prompt_file(seed: int, name: str) -> str:
    """The text of a prompt file on held-out words, with a mapping that no training document has."""
    shots, examples, items = EVALUATED[name]
    draw = stream(seed, "evaluation", list(EVALUATED).index(name)).random
    _, pairs = pairs_of(draw, name, examples + (items or 40), held_out=True)
    if name in LOOK_UP_TASKS:
        questions = list(dict.fromkeys(pairs))
    else:
        examples = min(examples, len(pairs) // 2)
        shots = [n for n in shots if n <= examples]
        questions = pairs[examples:]
    lines = [
        f"# The task {name!r} of the generator, on words that its training documents do not have.",
        "format = 1",
        'template = "{input} =>"',
        "",
        "[generate]",
        "max_tokens = 16",
        'stop = ["\\n"]',
        "",
        "[shots]",
        f"n = {shots}",
        *_tables("examples", pairs[:examples]),
        *_tables("items", questions),
    ]
    return "\n".join(lines) + "\n"


def write_evaluation(seed: int, folder: Path) -> None:
    """All prompt files, as `folder`/TASK.prompt.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in EVALUATED:
        with replacing(folder / f"{name}.prompt.toml") as temporary:
            temporary.write_text(prompt_file(seed, name), encoding="utf-8", newline="\n")


__all__ = ["fewshot", "parts", "prompt_file", "write_evaluation"]
