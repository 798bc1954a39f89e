"""Each check with a file that it is about and one that it is not, and the whole of what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minigen.errors import TokenizerError
from minigen.evaluation.fewshot import Finding, PromptFile, check

Load = Callable[..., PromptFile]

END = '[generate]\nmax_tokens = 4\nstop = ["\\n"]\n'


def rows(kind: str, *pairs: tuple[str, str]) -> str:
    return "".join(f"[[{kind}]]\ninput = {a!r}\noutput = {b!r}\n" for a, b in pairs)


GOOD = (
    'format = 1\ntemplate = "{input} =>"\n'
    + rows("examples", ("a", "b"))
    + rows("items", ("c", "d"))
    + END
)
GOOD += "[shots]\nn = [0, 1]\n"
CLOSED = 'format = 1\ntemplate = "{input} =>"\nchoices = ["yes", "no"]\n' + rows(
    "items", ("c", "no"), ("d", "yes")
)
TOP = "format = 1\n"


def found(file: PromptFile) -> list[str]:
    return [str(finding) for finding in check(file)]


@pytest.mark.parametrize("text", [GOOD, CLOSED], ids=["generated", "choices"])
def test_nothing_to_say(load: Load, text: str) -> None:
    assert check(load(text), list_bytes, 100) == []


def list_bytes(text: str) -> list[int]:
    return list(text.encode())


# name -> (file, all findings)
FINDINGS = {
    "more shots than examples": (
        GOOD.replace("n = [0, 1]", "n = [0, 2]"),
        ["t.prompt.toml: error: shots.n has 2, but there are 1 examples; add some, or lower it"],
    ),
    "seeds that change nothing": (
        GOOD + "seeds = [0, 1]\n",
        [
            't.prompt.toml: error: shots.seeds has 2 seeds, but pick = "first" ignores them; use "random" or one seed'
        ],
    ),
    "seeds that change the examples": (GOOD + 'seeds = [0, 1]\npick = "random"\n', []),
    "answer empty": (
        GOOD.replace("output = 'd'", "output = ' '").replace(
            '"{input} =>"', '"{input} =>"\nanswer_sep = ":"'
        ),
        [
            "t.prompt.toml:7: error: the answer is ' '; give it a text",
            "t.prompt.toml:7: warning: the answer ' ' ends with white space; take it off",
        ],
    ),
    "choice empty": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", ""]\ngold = 0\n',
        ["t.prompt.toml:2: error: a choice is ''; give it a text"],
    ),
    "answer not a choice": (
        CLOSED.replace("output = 'no'", "output = 'nope'"),
        [
            "t.prompt.toml:4: error: the answer 'nope' is not among the choices; correct it, or add it to them"
        ],
    ),
    "answer of an example not a choice": (
        CLOSED + rows("examples", ("e", "nope")) + "[shots]\nn = 1\n",
        ["t.prompt.toml:10: error: the answer 'nope' is not among the choices; correct it"],
    ),
    "choice twice": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", "c", "b"]\ngold = 0\n',
        ["t.prompt.toml:2: error: the choice 'b', the right one, is there 2 times; keep one"],
    ),
    "wrong choice twice": (
        'format = 1\n[[items]]\ninput = "a"\nchoices = ["b", "c", "b"]\ngold = 1\n',
        ["t.prompt.toml:2: warning: the choice 'b' is there 2 times; keep one"],
    ),
    "context twice": (
        'format = 1\n[[items]]\ncontext_options = ["a", "a"]\ncontinuation = "b"\ngold = 0\n',
        [
            "t.prompt.toml:2: error: two contexts give the same prompt; the template may lack a field"
        ],
    ),
    "stop in an answer": (
        GOOD.replace("output = 'd'", 'output = "d\\ne"'),
        ["t.prompt.toml:6: error: stop '\\n' is in ' d\\ne'; no output can hold it"],
    ),
    "stop in the separator": (
        GOOD.replace('"{input} =>"', '"{input} =>"\nanswer_sep = "\\n"'),
        [
            "t.prompt.toml:4: error: stop '\\n' is in '\\nb'; no output can hold it (1 more like this)"
        ],
    ),
    "stop in a choice, where nothing is generated": (
        CLOSED.replace("no", "n. o") + '[generate]\nstop = ["."]\n',
        [],
    ),
    "stop in a pattern": (
        GOOD.replace("output = 'd'", "output = '''d\n?'''") + '[score]\nmetric = "regex"\n',
        [],
    ),
    "no answers": (
        GOOD.replace("output = 'd'\n", ""),
        [
            "t.prompt.toml:6: warning: no answer is given, so the item is not scored; give output, answer or gold"
        ],
    ),
    "no stop": (
        GOOD.replace('stop = ["\\n"]', ""),
        [
            "t.prompt.toml: warning: metric = exact without generate.stop: the output runs on past the answer; set stop"
        ],
    ),
    "no stop, where what follows does not count": (
        GOOD.replace('stop = ["\\n"]', "") + '[score]\nmetric = "contains"\n',
        [],
    ),
    "examples that are never shown": (
        GOOD.replace("[0, 1]", "0"),
        ["t.prompt.toml: warning: the 1 examples are never shown; set n in [shots]"],
    ),
    "item among the examples": (
        GOOD.replace("input = 'c'", "input = 'a'"),
        [
            "t.prompt.toml:6: warning: this item is also an example, at t.prompt.toml:3; "
            "its answer may stand in its own prompt"
        ],
    ),
    "spaces on both sides": (
        GOOD.replace("=>", "=> "),
        [
            "t.prompt.toml:3: warning: white space on both sides of the join 'a => ' + ' b': the two make one token "
            "in real text; keep one of them (1 more like this)"
        ],
    ),
    "line end, then a space": (
        TOP + 'template = "{input}\\n"\n' + rows("items", ("c", "d")) + END,
        [
            "t.prompt.toml:3: warning: white space on both sides of the join 'c\\n' + ' d': the two make one token in "
            "real text; keep one of them"
        ],
    ),
    "line end alone": (
        TOP + 'template = "{input}\\n"\nanswer_sep = ""\n' + rows("items", ("c", "d")) + END,
        [],
    ),
    "space in the template": (
        TOP + 'template = "{input}: "\nanswer_sep = ""\n' + rows("items", ("c", "d")) + END,
        [
            "t.prompt.toml:4: warning: the prompt ends with ' ', in 'c: ' + 'd': in real text it is in the token of "
            "the next word; move the space from the template to answer_sep"
        ],
    ),
    "space before the answer": (
        GOOD.replace("output = 'd'", "output = ' d'"),
        [
            "t.prompt.toml:6: warning: answer_sep ' ' is followed by more white space, in 'c =>' + '  d'; "
            "take it from the answer"
        ],
    ),
    "nothing between": (
        TOP + 'answer_sep = ""\n' + rows("items", ("c", "d")) + END,
        [
            "t.prompt.toml:3: warning: nothing stands between prompt and answer, in 'c' + 'd': they run into one word; "
            "set answer_sep"
        ],
    ),
    "nothing between, in a script without spaces": (
        TOP + 'template = "{input}："\nanswer_sep = ""\n' + rows("items", ("猫", "ねこ")) + END,
        [],
    ),
    "space after the answer": (
        GOOD.replace("output = 'd'", "output = 'd '"),
        ["t.prompt.toml:6: warning: the answer 'd ' ends with white space; take it off"],
    ),
    "first examples of one label": (
        CLOSED
        + rows("examples", ("1", "no"), ("2", "no"), ("3", "yes"), ("4", "yes"))
        + "[shots]\nn = [1, 2]\n",
        [
            "t.prompt.toml: warning: examples: 'no' 2, 'yes' 0: a model may copy the commoner; use pick = \"balanced\""
        ],
    ),
    "the same, balanced": (
        CLOSED
        + rows("examples", ("1", "no"), ("2", "no"), ("3", "yes"), ("4", "yes"))
        + '[shots]\nn = [1, 2]\npick = "balanced"\n',
        [],
    ),
    "uneven examples to draw from": (
        CLOSED
        + rows("examples", ("1", "no"), ("2", "no"), ("3", "yes"), ("4", "no"))
        + '[shots]\nn = [1, 2]\npick = "random"\n',
        [
            "t.prompt.toml: warning: examples: 'no' 3, 'yes' 1: a model may copy the commoner; use pick = \"balanced\""
        ],
    ),
    "uneven items": (
        CLOSED + rows("items", ("e", "no"), ("f", "no")),
        [
            "t.prompt.toml: warning: items: 'no' 3, 'yes' 1: always 'no' is right for 75 %; "
            "compare the accuracy with that"
        ],
    ),
    "choice in another": (
        CLOSED.replace("yes", "not now"),
        [
            "t.prompt.toml: warning: the choice 'no' is the beginning of 'not now': the shorter is often likelier for "
            "its length alone; reword, or set normalize"
        ],
    ),
    "choices that begin alike": (
        CLOSED.replace("yes", "very good").replace("no", "very bad"),
        [
            "t.prompt.toml: warning: the choices 'very good' and 'very bad' begin alike: only the rest tells them "
            "apart, which normalize = token or byte dilutes; reword if you can"
        ],
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_findings(load: Load, name: str) -> None:
    text, findings = FINDINGS[name]
    assert found(load(text)) == findings


def test_errors_come_first(load: Load) -> None:
    findings = check(load(GOOD.replace("=>", "=> ").replace("[0, 1]", "2")))
    assert [finding.level for finding in findings] == ["error", "warning"]


# -- with a tokenizer --
def test_tokens_that_join(load: Load) -> None:
    text = (
        TOP
        + 'template = "{input} :"\nanswer_sep = ""\n'
        + rows("items", ("c", ":d"), ("e", " f"))
        + END
    )
    findings = check(load(text), lambda t: [len(part) for part in t.split(" ")])
    assert findings == [
        Finding(
            "warning",
            "t.prompt.toml:4",
            "the prompt's tokens are not the first of prompt + answer, at 'c :' + ':d': token 1 becomes 3; "
            "end the template or begin answer_sep elsewhere",
        )
    ]


def test_common_tokens_are_counted(load: Load) -> None:
    text = CLOSED.replace("yes", "very good").replace("no", "very bad")
    (finding,) = check(load(text), lambda t: [len(part) for part in t.split(" ")])
    assert "begin alike by 2 of 3 and 3 tokens: only" in finding.message


def test_context_of_what_is_generated(load: Load) -> None:
    file = load(
        GOOD + 'seeds = 5\npick = "random"\n'
    )  # "c =>": 4 bytes; with the example, "a => b\n": 11
    assert check(file, list_bytes, 15) == []
    (finding,) = check(file, list_bytes, 14)
    assert finding == Finding(
        "error",
        "t.prompt.toml:6",
        "item 1 with 1 shots (seed 5) has 11 tokens and 4 new, and the context is 14; "
        "use fewer shots, shorter texts, or a model with a longer context",
    )
    assert check(file, list_bytes, 14, max_new=3) == []
    assert len(check(file, list_bytes, 7)) == 2  # neither 0 nor 1 shots fit


def test_context_of_choices(load: Load) -> None:
    file = load(CLOSED)  # "c => yes": 8 bytes
    assert check(file, list_bytes, 8) == []
    (finding,) = check(file, list_bytes, 7)
    assert finding.message == (
        "item 1 with 0 shots (seed 0) has 8 tokens, and the context is 7; "
        "use fewer shots, shorter texts, or a model with a longer context (1 more like this)"
    )


def test_context_with_long_descriptions_and_tokens_that_merge(load: Load) -> None:
    """The size is that of the whole text, however many tokens its parts have on their own."""
    file = load(CLOSED.replace("format = 1", f'format = 1\ndescription = "{"x" * 500}"'))
    assert check(file, list_bytes, 509) == []
    assert len(check(file, list_bytes, 508)) == 1
    for extra in (
        -5,
        5,
    ):  # a tokenizer that adds tokens to each text, and one whose texts share some

        def encode(text: str, extra: int = extra) -> list[int]:
            return [0] * max(0, extra) + list_bytes(text)[max(0, -extra) :]

        assert [f for f in check(file, encode, 509 + extra) if f.level == "error"] == []
        assert len([f for f in check(file, encode, 508 + extra) if f.level == "error"]) == 1


def test_text_without_tokens(load: Load) -> None:
    def encode(text: str) -> list[int]:
        raise TokenizerError("no id for 'c'")

    (finding,) = check(load(GOOD), encode)
    assert str(finding) == (
        "t.prompt.toml: error: the tokenizer cannot encode a text of this file: no id for 'c'"
    )
