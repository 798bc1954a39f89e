"""Each mistake that can be made in a prompt file itself, with the whole line that it gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from minigen.evaluation.fewshot import PromptError, PromptFile, load_prompt_file

Load = Callable[..., PromptFile]

ITEM = '[[items]]\ninput = "a"\noutput = "b"\n'
TABLES = "there are format, description, template, answer_sep, block_sep, examples, examples_file, examples_skip"
CHOICES = 'format = 1\nchoices = ["b", "c"]\n' + ITEM

# name -> (the file, the message after "t.prompt.toml:")
MISTAKES = {
    "format missing": (ITEM, "1: format: is missing; begin the file with format = 1"),
    "format 2": ("format = 2\n" + ITEM, "1: format: is 2; this program reads format = 1"),
    "format true": ("format = true\n" + ITEM, "1: format: is True; this program reads format = 1"),
    "unknown key": (
        'format = 1\n# a comment\ntemplat = "{input}"\n' + ITEM,
        "3: templat: is no key; did you mean template?",
    ),
    "unknown key, unlike any": (
        "format = 1\nzzz = 1\n" + ITEM,
        f"2: zzz: is no key; {TABLES}, examples_limit, items, items_file, items_skip, items_limit, choices, labels, "
        "generate, shots, score",
    ),
    "unknown table": (f"format = 1\n{ITEM}[scores]\n", "5: scores: is no key; did you mean score?"),
    "key of a table at the top": (
        "format = 1\nn = 3\n" + ITEM,
        "2: n: is no key here; it belongs in [shots]",
    ),
    "key of the top in a table": (
        f'format = 1\n{ITEM}[score]\ntemplate = "{{x}}"\n',
        "6: score.template: is no key here; it belongs at the top, before the first [table]",
    ),
    "key of the top in an item": (
        f'format = 1\n{ITEM}block_sep = ""\n',
        "5: items #1.block_sep: is no key here; it belongs at the top, before the first [table]",
    ),
    "unknown key in [shots]": (
        f"format = 1\n{ITEM}[shots]\nseed = 3\n",
        "6: shots.seed: is no key; did you mean seeds?",
    ),
    "unknown key in [score]": (
        f'format = 1\n{ITEM}[score]\nnormalise = "none"\n',
        "6: score.normalise: is no key; did you mean normalize?",
    ),
    "unknown key in [generate]": (
        f"format = 1\n{ITEM}[generate]\nmax_token = 3\n",
        "6: generate.max_token: is no key; did you mean max_tokens?",
    ),
    "speculation, which is for one text": (
        f'format = 1\n{ITEM}[generate]\nspeculate = "lookup"\n',
        "6: generate.speculate: is no key; did you mean special?",
    ),
    "description not a text": (
        'format = 1\ndescription = ["a"]\n' + ITEM,
        "2: description: is ['a']; it must be a text in quotes",
    ),
    "table not a table": (
        "format = 1\nshots = 3\n" + ITEM,
        "2: shots: is 3; it must be a table, as in [shots]",
    ),
    # -- the template --
    "template: single brace": (
        'format = 1\ntemplate = "{input"\n' + ITEM,
        "2: template: has a single brace; write {{ or }} for a literal one",
    ),
    "template: no field": (
        'format = 1\ntemplate = "{{input}}"\n' + ITEM,
        "2: template: has no field; put one in braces, as in {input}",
    ),
    "template: no name": (
        'format = 1\ntemplate = "{}"\n' + ITEM,
        "2: template: has {}; name the field, as in {input}",
    ),
    "template: number": (
        'format = 1\ntemplate = "{0}"\n' + ITEM,
        "2: template: has {0}; a field's name is letters, digits, _ and -, and begins with a letter",
    ),
    "template: attribute": (
        'format = 1\ntemplate = "{input.__class__}"\n' + ITEM,
        "2: template: has {input.__class__}; a field's name is letters, digits, _ and -, and begins with a letter",
    ),
    "template: index": (
        'format = 1\ntemplate = "{input[0]}"\n' + ITEM,
        "2: template: has {input[0]}; a field's name is letters, digits, _ and -, and begins with a letter",
    ),
    "template: conversion": (
        'format = 1\ntemplate = "{input!r}"\n' + ITEM,
        "2: template: has {input!r}; only a plain name may stand in braces, without ! or :",
    ),
    "template: format": (
        'format = 1\ntemplate = "{input:>9}"\n' + ITEM,
        "2: template: has {input:>9}; only a plain name may stand in braces, without ! or :",
    ),
    # -- rows --
    "field missing": (
        f'format = 1\ntemplate = "{{word}}"\n{ITEM}',
        "3: items #1.word: is missing; the template needs {word}, and the row has only input, output",
    ),
    "field missing in the second example": (
        f'format = 1\n{ITEM}[[examples]]\ninput = "a"\noutput = "b"\n[[examples]]\noutput = "b"\n',
        "8: examples #2.input: is missing; the template needs {input}, and the row has only output",
    ),
    "field misspelt": (
        'format = 1\n[[items]]\nimput = "a"\n',
        "3: items #1.imput: is no key; did you mean input?",
    ),
    "field not a text": (
        'format = 1\n[[items]]\ninput = 1.5\noutput = "b"\n',
        "3: items #1.input: is 1.5; it must be a text",
    ),
    "empty row": (
        "format = 1\n[[items]]\n",
        "2: items #1.input: is missing; the template needs {input}, and the row is empty",
    ),
    "answer not a text": (
        'format = 1\n[[items]]\ninput = "a"\noutput = true\n',
        "4: items #1.output: is True; it must be a text",
    ),
    "two answers": (
        'format = 1\n[[items]]\ninput = "a"\noutput = "b"\nanswer = "c"\n',
        "5: items #1.answer: is an answer, and so is output; keep one of them",
    ),
    "example without an answer": (
        f'format = 1\n{ITEM}[[examples]]\ninput = "a"\n',
        "5: examples #1.output: is missing; an example needs its answer",
    ),
    "answer in the template": (
        'format = 1\ntemplate = "{input} {output}"\n[[examples]]\ninput = "a"\noutput = "b"\n'
        + ITEM,
        "5: examples #1.output: is in the template, so it is no answer; the template ends before it: drop {output}",
    ),
    "gold without choices": (
        'format = 1\n[[items]]\ninput = "a"\ngold = 0\n',
        "4: items #1.gold: is an index, but there are no choices; give choices, or the answer as output",
    ),
    "gold out of range": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", "c"]\ngold = 2\n',
        "5: items #1.gold: is 2; it must be an index from 0 to 1",
    ),
    "gold not a number": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", "c"]\ngold = "b"\n',
        "5: items #1.gold: is 'b'; it must be an index from 0 to 1",
    ),
    "gold against the answer": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", "c"]\ngold = 1\noutput = "b"\n',
        "5: items #1.gold: means 'c', but the answer is 'b'; keep one of them",
    ),
    "one choice": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b"]\n',
        "4: items #1.choices: is ['b']; it must be a list of at least two texts",
    ),
    "choice not a text": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", [1]]\n',
        "4: items #1.choices: is [1]; it must be a text",
    ),
    "no choices for all": (
        "format = 1\nchoices = []\n" + ITEM,
        "2: choices: is []; there must be at least two",
    ),
    "choices not texts": (
        'format = 1\nchoices = ["a", 1]\n' + ITEM,
        "2: choices: has the entry 1; each must be a text in quotes",
    ),
    "choices no list": (
        'format = 1\nchoices = "a"\n' + ITEM,
        "2: choices: is 'a'; it must be a list of texts",
    ),
    "choices for some": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", "c"]\n[[items]]\ninput = "a"\n',
        "5: choices: is missing, but other items have it; give it to all or to none",
    ),
    "contexts and choices": (
        'format = 1\nchoices = ["b", "c"]\n[[items]]\ncontext_options = ["a", "b"]\ncontinuation = "c"\n',
        "4: items #1.context_options: is a choice of contexts, but there are choices too; drop one of them",
    ),
    "contexts without continuation": (
        'format = 1\n[[items]]\ncontext_options = ["a", "b"]\n',
        "2: items #1.continuation: is missing; context_options needs what follows each of them",
    ),
    "contexts of an example without gold": (
        f'format = 1\n{ITEM}[[examples]]\ncontext_options = ["a", "b"]\ncontinuation = "c"\n',
        "5: examples #1.gold: is missing; an example must say which context is right",
    ),
    "label unknown": (
        'format = 1\nlabels = { pos = "good", neg = "bad" }\n[[items]]\ninput = "a"\noutput = "poss"\n',
        "5: items #1.output: is 'poss', which is not in labels; did you mean pos?",
    ),
    "labels empty": (
        "format = 1\nlabels = {}\n" + ITEM,
        "2: labels: is empty; name each label's word, or drop the key",
    ),
    "label not a text": (
        f"format = 1\n{ITEM}[labels]\n0 = 1\n",
        "6: labels.0: is 1; it must be a text in quotes",
    ),
    "last word of one": (
        'format = 1\n[[items]]\ntext = "word"\n',
        "3: items #1.text: has no two words; its last word is the answer",
    ),
    # -- where rows come from --
    "no items": (
        'format = 1\n[[examples]]\ninput = "a"\n',
        "1: items: is missing; give [[items]] or items_file",
    ),
    "items empty": ("format = 1\nitems = []\n", "2: items: is []; write each as a [[items]] table"),
    "items no tables": (
        'format = 1\nitems = ["a"]\n',
        "2: items: is ['a']; write each as a [[items]] table",
    ),
    "examples a text": (
        'format = 1\nexamples = "rows.jsonl"\n' + ITEM,
        "2: examples: is 'rows.jsonl'; write each as a [[examples]] table",
    ),
    "items and a file": (
        'format = 1\nitems_file = "rows.jsonl"\n' + ITEM,
        "2: items_file: and items are both given; keep one of them",
    ),
    "examples and a file": (
        f'format = 1\nexamples_file = "rows.jsonl"\n{ITEM}[[examples]]\ninput = "a"\noutput = "b"\n',
        "2: examples_file: and examples are both given; keep one of them",
    ),
    "limit without a file": (
        "format = 1\nitems_limit = 3\n" + ITEM,
        "2: items_limit: is for items_file, which is missing; give it, or drop this",
    ),
    "limit 0": (
        'format = 1\nitems_file = "rows.jsonl"\nitems_limit = 0\n',
        "3: items_limit: is 0; it must be a whole number >= 1",
    ),
    "file missing": (
        'format = 1\nitems_file = "no/such.jsonl"\n',
        "2: items_file: cannot read no/such.jsonl: No such file or directory; the path starts at this file's folder",
    ),
    "file a folder": (
        'format = 1\nitems_file = "."\n',
        "2: items_file: cannot read .: Is a directory; the path starts at this file's folder",
    ),
    # -- settings --
    "shots negative": (
        f"format = 1\n{ITEM}[shots]\nn = [0, -1]\n",
        "6: shots.n: has -1; each must be a whole number >= 0",
    ),
    "shots a text": (
        f'format = 1\n{ITEM}[shots]\nn = "3"\n',
        "6: shots.n: has '3'; each must be a whole number >= 0",
    ),
    "shots empty": (
        f"format = 1\n{ITEM}[shots]\nn = []\n",
        "6: shots.n: is empty; give at least one number, or drop the key",
    ),
    "shots twice": (
        f"format = 1\n{ITEM}[shots]\nn = [1, 1]\n",
        "6: shots.n: has 1 twice; name each once",
    ),
    "seed too large": (
        f"format = 1\n{ITEM}[shots]\nseeds = 18446744073709551616\n",
        "6: shots.seeds: has 18446744073709551616; each must be a whole number >= 0 and < 18446744073709551616",
    ),
    "pick unknown": (
        f'format = 1\n{ITEM}[shots]\npick = "ballanced"\n',
        "6: shots.pick: is 'ballanced'; did you mean balanced?",
    ),
    "normalize unknown": (
        f'format = 1\n{ITEM}[score]\nnormalize = "chars"\n',
        "6: score.normalize: is 'chars'; there are none, token, byte, uncond",
    ),
    "metric not a text": (
        f"format = 1\n{ITEM}[score]\nmetric = 1\n",
        "6: score.metric: is 1; there are exact, contains, f1, regex, accuracy",
    ),
    "accuracy without choices": (
        f'format = 1\n{ITEM}[score]\nmetric = "accuracy"\n',
        "6: score.metric: is accuracy, but the item at t.prompt.toml:2 has no choices; give choices, or use exact",
    ),
    "contexts generated": (
        'format = 1\n[[items]]\ncontext_options = ["a", "b"]\ncontinuation = "c"\n[score]\nmetric = "exact"\n',
        "6: score.metric: is exact, but context_options are scored; use accuracy",
    ),
    "contexts calibrated": (
        'format = 1\n[[items]]\ncontext_options = ["a", "b"]\ncontinuation = "c"\n[score]\ncalibrate = [""]\n',
        "6: score.calibrate: cannot be with context_options, which share one answer; drop it",
    ),
    "normalize what is generated": (
        f'format = 1\n{ITEM}[score]\nnormalize = "byte"\n',
        "6: score.normalize: is for choices, and the metric is exact; drop it, or give choices",
    ),
    "calibrate what is generated": (
        f'{CHOICES}[score]\nmetric = "f1"\ncalibrate = ["N/A"]\n',
        "8: score.calibrate: is for choices, and the metric is f1; drop it, or give choices",
    ),
    "no regular expression": (
        'format = 1\n[[items]]\ninput = "a"\noutput = "("\n[score]\nmetric = "regex"\n',
        "2: answer: is no regular expression: missing ), unterminated subpattern at position 0; "
        "metric = regex searches for it",
    ),
    "setting out of range": (
        f"format = 1\n{ITEM}[generate]\n\nmax_tokens = 0\n",
        "7: generate.max_tokens: max_tokens is 0: it must be a whole number >= 1; see minigen generate --help",
    ),
    "stop a text": (
        f'format = 1\n{ITEM}[generate]\nstop = "."\n',
        "6: generate.stop: stop is '.': it must be a list of strings; see minigen generate --help",
    ),
    "temperature twice": (
        f"format = 1\n{ITEM}[generate]\ntemperature = 1\ntemp = 1\n",
        "7: generate.temp: and temperature are the same setting; keep one of them",
    ),
    "settings against each other": (
        f"format = 1\n{ITEM}[generate]\nbeams = 2\nnum_samples = 2\n",
        "5: generate: beam search gives one continuation without logprobs: drop num_samples, logprobs, or beams; "
        "see minigen generate --help",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(load: Load, name: str) -> None:
    text, message = MISTAKES[name]
    with pytest.raises(PromptError) as caught:
        load(text)
    assert str(caught.value) == f"t.prompt.toml:{message}"


# What the parser itself says differs between versions of Python: the line and the place are ours.
@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("format = 1\nx = \n" + ITEM, 2, "'x ='"),
        ("format = 1\n\nformat = 1\n" + ITEM, 3, "'format = 1'"),
        (f"format = 1\n[shots]\n{ITEM}[shots]\n", 6, "'[shots]'"),
        ('format = 1\ntemplate = "a\nb"\n', 2, "'template = \"a'"),
        ("format = 1\nchoices = [\n", 2, "'choices = ['"),
    ],
    ids=["no value", "key twice", "table twice", "line break in a text", "open list"],
)
def test_broken_toml(load: Load, text: str, line: int, shown: str) -> None:
    with pytest.raises(PromptError) as caught:
        load(text)
    assert re.fullmatch(
        rf"t\.prompt\.toml:{line}: TOML: [^\n]+; look at {re.escape(shown)}", str(caught.value)
    )


def test_other_encodings(load: Load) -> None:
    with pytest.raises(PromptError) as caught:
        load("format = 1\ndescription = 'menthe poivrée'\n".encode("latin-1"))
    assert (
        str(caught.value)
        == "t.prompt.toml:2: encoding: byte 0xE9 is not UTF-8; save the file as UTF-8"
    )


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PromptError) as caught:
        load_prompt_file("no.prompt.toml")
    assert str(caught.value) == (
        "no.prompt.toml: cannot be read: No such file or directory; give a *.prompt.toml file"
    )


def test_byte_order_mark_and_line_ends_are_no_mistakes(load: Load) -> None:
    text = f'format = 1\ndescription = """a\nb"""\n{ITEM}'
    assert load("\ufeff" + text.replace("\n", "\r\n")) == load(text)
    assert load(text).description == "a\nb"
