"""Flags as people type them: spellings of other programs, values that begin with a dash, and what is near a mistake."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from minigen.chat.engine import CHAT_SETTINGS
from minigen.errors import UsageError
from minigen.generation.options import Options
from minigen.reading.spellings import HINTS, SYNONYMS, advice, spellings

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]
main = import_module("minigen.cli.main")


def leaves(parser: Any) -> Iterator[Any]:
    """The parsers that have flags of their own, of a command and its actions."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below and len(parser._option_string_actions) > 2:
        yield parser
    for action in below:
        for other in action.choices.values():
            yield from leaves(other)


def parsers() -> dict[str, Any]:
    """Every command that takes flags, by what is typed for it."""
    return {
        leaf.prog: leaf for command in main.COMMANDS for leaf in leaves(main.build_parser(command))
    }


def parse(*words: str) -> argparse.Namespace:
    found: argparse.Namespace = main.build_parser(words[0]).parse_args(list(words))
    return found


# -- the table --
def test_every_spelling_is_of_one_flag() -> None:
    commands = parsers()
    assert len(commands) == 11
    met: set[str] = set()
    for prog, parser in commands.items():
        assert not parser.allow_abbrev
        names = parser.names()
        table = spellings(names)
        met |= set(table.values())
        assert {name: table[name] for name in names} == {name: name for name in names}, (
            f"{prog}: a flag is shadowed"
        )
        for group in SYNONYMS:
            actions = {id(parser.action_of(names[name])) for name in group if name in names}
            assert len(actions) <= 1, f"{prog}: {group} has flags that are not the same"
        shorts = {flag for flag in parser._option_string_actions if not flag.startswith("--")}
        assert all(parser.flag_of(flag) == flag for flag in shorts), (
            f"{prog}: a short flag is shadowed"
        )
    for group in SYNONYMS:
        assert met & set(group), f"{group} has no flag of any command"
    for name, targets in HINTS.items():
        assert met & set(targets), f"the hint for {name} names no flag of any command"


def test_the_help_has_each_flag_once_and_says_that_others_are_taken() -> None:
    for prog, parser in parsers().items():
        text = parser.format_help()
        assert "Flags may be written with _ for -" in text, prog
        names = parser.names()
        shown = {name for name in names if parser.action_of(names[name]).help != argparse.SUPPRESS}
        for other in set(spellings(names)) - shown:
            assert f"--{other.replace('_', '-')} " not in text, f"{prog}: {other}"


# -- what is taken --
TAKEN = {
    "generate": [
        ("--temperature 0", "temperature", 0.0),
        ("--temp=0", "temperature", 0.0),
        ("--top_p 0.5", "top_p", 0.5),
        ("--topk=7", "top_k", 7),
        ("--typical_p 0.5", "typical_p", 0.5),
        ("--repeat-penalty 1.1", "repetition_penalty", 1.1),
        ("--repetition_penalty=1.1", "repetition_penalty", 1.1),
        ("--no-repeat-ngram-size 3", "no_repeat_ngram_size", 3),
        ("--max_tokens 4", "max_tokens", 4),
        ("--max_new_tokens 4", "max_tokens", 4),
        ("--max-new_tokens=4", "max_tokens", 4),
        ("--n-predict 4", "max_tokens", 4),
        ("--num_predict 4", "max_tokens", 4),
        ("--num_return_sequences 2", "num_samples", 2),
        ("--num_beams 2", "beams", 2),
        ("--draft_model x", "draft", "x"),
        ("--num-draft-tokens 3", "draft_tokens", 3),
        ("--quantize 8", "quant", "8"),
        ("--torch_dtype bfloat16", "dtype", "bfloat16"),
        ("--prompt-file x", "file", ["x"]),
        ("--num_threads 3", "threads", 3),
        ("--ignore_eos", "ignore_eos", True),
        ("--model x", "model", "x"),
        ("-m x", "model", "x"),
        ("-mx", "model", "x"),
        ("--hf-repo x", "model", "x"),
        ("x --model x", "model", "x"),
    ],
    "chat": [
        ("--system-prompt x", "system", "x"),
        ("--ctx-size 64", "context", 64),
        ("-c 64", "context", 64),
        ("--no_save", "no_save", True),
        ("-m x", "model", "x"),
    ],
    "score": [
        ("f --ppl-stride 4", "stride", 4),
        ("f --n_ctx 8", "window", 8),
        ("--file f -f g", "files", ["f", "g"]),
        ("f -f g", "files", ["f", "g"]),
        ("f --model_path x", "model", "x"),
    ],
    "prompt": [
        ("f --num_fewshot 0,2", "shots", (0, 2)),
        ("f --model x", "model", "x"),
        ("-f f", "files", ["f"]),
    ],
    "cache": [
        ("build f --model x", "model", "x"),
        ("build --prompt-cache f", "cache", "f"),
        ("show --cache f", "cache", "f"),
    ],
    "train": [
        ("--learning_rate 0.1", "lr", 0.1),
        ("--batch_size 4", "batch", 4),
        ("--n_layer 2", "layers", 2),
        ("--max-iters 9", "steps", 9),
        ("--output_dir x", "out", "x"),
        ("--eval_interval 5", "eval_every", 5),
        ("--no_compile", "compile", False),
        ("--data x", "data", ["x"]),
        ("a --dataset x", "data", ["a", "x"]),
    ],
    "convert": [
        ("a b --q-bits 4", "quant", "4"),
        ("--model a --out b", "out", "b"),
        ("--model a b", "out", "b"),
        ("--out b a", "model", "a"),
        ("a b --model a", "out", "b"),
        ("a b --output b", "model", "a"),
    ],
    "bench": [
        ("-m a -m b c", "models", ["c", "a", "b"]),
        ("--batch 1,2", "batch_size", [1, 2]),
        ("--generation-tokens 8", "n_gen", [8]),
        ("-n 8", "n_gen", [8]),
    ],
    "tokenizer": [("train f --output x", "out", "x"), ("train --file f --out x", "files", ["f"])],
}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (f"{command} {words}", name, value)
        for command, rows in TAKEN.items()
        for words, name, value in rows
    ],
)
def test_spellings_that_are_taken(words: str, name: str, value: Any) -> None:
    assert getattr(parse(*words.split()), name) == value


@pytest.mark.parametrize(
    "text", ["-hello", "--", "---", "- be kind", "-n is a flag", "-x", "--hello world", "-1", "-"]
)
def test_values_that_begin_with_a_dash(text: str) -> None:
    assert parse("generate", "-p", text, "x").prompt == [text]
    assert parse("generate", "--prompt", text, "--prompt", text).prompt == [text, text]
    assert parse("generate", "x", "--stop", text, "-p", "a", "--stop", text).stop == [text, text]
    assert parse("generate", "-f", text).file == [text]
    assert parse("generate", "--model", text).model == text
    assert parse("chat", "--system", text, "-n", "3").system == text
    assert parse("chat", "--resume", text).resume == ("the newest" if text == "--" else text)
    assert parse("score", "f", "--split", text).split == text
    assert parse("train", "d", "--separator", text, "--lr", "1").separator == text
    assert parse("cache", "build", "f", "--prompt", text).prompt == [text]
    assert parse("convert", "a", "b", "--lora", text).lora == text
    assert parse("prompt", "f", "--jsonl", text).jsonl == Path(text)


def test_what_follows_two_dashes_is_no_flag() -> None:
    assert parse("score", "-m", "x", "--", "-a", "--ctx_size").files == ["-a", "--ctx_size"]


# -- what is not --
BAD = {
    "a mistake": (
        "generate --temprature 0 -p a",
        "unrecognized arguments: --temprature (did you mean --temperature?)",
    ),
    "one of ours": (
        "train d --layer 3",
        "unrecognized arguments: --layer 3 (did you mean --layers?)",
    ),
    "with a value": (
        "generate --max_tokns=5",
        "unrecognized arguments: --max_tokns=5 (did you mean --max-tokens?)",
    ),
    "two meanings": (
        "train d --hidden_size 3",
        "--hidden_size 3 (did you mean --width or --hidden?)",
    ),
    "two groups": (
        "train d --model_name_or_path x",
        "--model_name_or_path x (did you mean --model or --from?)",
    ),
    "short": (
        "generate -t 0 -p a",
        "unrecognized arguments: -t (did you mean --temp or --threads?)",
    ),
    "one dash": ("chat -temp 0", "unrecognized arguments: -temp (did you mean --temp?)"),
    "nothing near": (
        "generate --bogus",
        "unrecognized arguments: --bogus (see minigen generate --help)",
    ),
    "a command": (
        "genrate -p a",
        "invalid choice: 'genrate' (did you mean generate?) (see minigen --help)",
    ),
    "an action": (
        "cache biuld f",
        "invalid choice: 'biuld' (did you mean build?) (see minigen cache --help)",
    ),
    "no command near": (
        "xyz",
        "invalid choice: 'xyz' (choose from chat, generate, prompt, score, cache, train, ",
    ),
    "a choice": (
        "generate --dtype flaot32",
        "--dtype: invalid choice: 'flaot32' (did you mean float32?)",
    ),
    "before a command": ("--bogus generate -p a", "unrecognized arguments: --bogus"),
    "two models": (
        "generate x -m y -p a",
        "MODEL is given as y and as x: name one (see minigen generate --help)",
    ),
    "two by flag": (
        "chat -m x --model y",
        "MODEL is given as x and as y: name one (see minigen chat --help)",
    ),
    "two of convert": ("convert a b -m c", "MODEL is given as c and as a: name one"),
    "two outs": ("convert a b -o c", "OUT is given as c and as b: name one"),
    "no files": ("score -m x", "the following arguments are required: FILE"),
    "no out": ("convert -m x", "the following arguments are required: OUT"),
    "a flag for a text": (
        "generate -p -n 3",
        "-p/--prompt: expected a value, but -n looks like a flag; if it is ",
    ),
    "the way out": ("generate --stop --verbose", "if it is the value, write --stop=--verbose"),
    "nearly a flag": ("generate -p --verbos", "if it is the value, write --prompt=--verbos"),
    "a flag and its value": ("generate -p -n3", "if it is the value, write --prompt=-n3"),
    "a list of texts": (
        "tokenizer train f --out o --special -a",
        "if it is the value, write --special=-a",
    ),
    "nothing": ("generate -p", "argument -p/--prompt: expected one argument"),
    "no number": ("generate -n --temp 0", "argument -n/--max-tokens: expected one argument"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_named(run_cli: Run, what: str) -> None:
    words, message = BAD[what]
    code, out, err = run_cli(*words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_file_that_begins_with_a_dash(
    run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x.txt").write_text("abc")
    assert "(did you mean the file ./-x.txt?)" in run_cli("score", "a", "-x.txt")[2]
    assert parse("score", "./-x.txt").files == ["./-x.txt"]


# -- beyond flags --
def test_a_prompt_that_begins_with_a_dash(run_cli: Run, tiny: Tiny, backend: str) -> None:
    greedy = ("--temp", "0", "-n", "5", "--backend", backend)
    wanted = run_cli("generate", tiny("llama"), "--prompt=-hello", *greedy)
    assert wanted[0] == 0
    assert run_cli("generate", "--model", tiny("llama"), "-p", "-hello", *greedy) == wanted


def test_settings_of_a_chat(
    run_cli: Run, make_bigram: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.txt"
    typed = [
        "temp 0",
        "max-tokens 10",
        "n 11",
        "max_new_tokens 12",
        "repeat-penalty 1.5",
        "ctx-size 64",
        "topp 0.5",
    ]
    lines.write_text("".join(f"/set {line}\n" for line in typed))
    with lines.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        code, _, err = run_cli("chat", make_bigram(), "--lines", "--no-save")
    assert code == 0
    said = [line.removeprefix("minigen: ") for line in err.splitlines()]
    wanted = [
        "temperature is 0.0",
        "max_tokens is 10",
        "max_tokens is 11",
        "max_tokens is 12",
        "repetition_penalty is 1.5",
    ]
    assert said == [*wanted, "context is 64", "top_p is 0.5"]
    lines.write_text("/set tempreature 0\n")
    with lines.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        code, _, err = run_cli("chat", make_bigram(), "--lines", "--no-save")
    assert (code, err) == (
        2,
        "minigen: tempreature is not a setting of a chat: did you mean temperature?\n",
    )


def test_the_library_and_files_name_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"^max_new_tokens is not a setting: did you mean max_tokens\?$"
    ):
        Options.of(max_new_tokens=3)
    with pytest.raises(
        UsageError, match=r"^temprature is not a setting: did you mean temperature\?$"
    ):
        Options.of(temprature=0)
    assert advice("xyzzy", CHAT_SETTINGS).startswith("there are max_tokens, stop, ")
