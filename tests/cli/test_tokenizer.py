"""`minigen tokenizer` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from minigen.tokenizer import load_tokenizer

Run = Callable[..., tuple[int, str, str]]


def test_train(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one and one\n<|endoftext|>\nand two and one\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "and two"}) + "\n")
    out = tmp_path / "out"
    code, said, err = run_cli(
        "tokenizer",
        "train",
        tmp_path,
        "--vocab-size",
        "262",
        "--out",
        out,
        "--special",
        "<|a|>",
        "<|b|>",
    )
    assert (code, err, said) == (0, "", f"{out}: 262 tokens, from 3 documents (3.4e-05 MB)\n")
    tokenizer = load_tokenizer(out)
    assert tokenizer is not None
    assert tokenizer.special_tokens == {"<|endoftext|>": 0, "<|a|>": 1, "<|b|>": 2}
    assert sorted(path.name for path in out.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    code, said, err = run_cli(
        "tokenizer", "train", tmp_path / "a.txt", "--vocab-size", "900", "--out", tmp_path / "big"
    )
    assert code == 0
    assert err.startswith("minigen: warning: the vocabulary has 2")
    assert "tokens instead of 900" in err


def test_characters(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("banana")
    code, said, err = run_cli(
        "tokenizer", "train", tmp_path / "a.txt", "--kind", "char", "--out", tmp_path / "out"
    )
    assert (code, err, said) == (
        0,
        "",
        f"{tmp_path / 'out'}: 3 tokens, from 1 document (6e-06 MB)\n",
    )
    assert json.loads((tmp_path / "out/vocab.json").read_text()) == ["a", "b", "n"]


def test_what_is_refused(run_cli: Run, tmp_path: Path) -> None:
    def says(*words: object) -> tuple[int, str]:
        code, out, err = run_cli("tokenizer", *words)
        assert out == ""
        assert err.count("\n") == 1
        return code, err.removeprefix("minigen: ").rstrip().replace(str(tmp_path), "TMP")

    (tmp_path / "a.txt").write_text("banana")
    train = ("train", tmp_path / "a.txt", "--out", tmp_path / "out")
    assert says(*train) == (2, "bpe needs a vocabulary size, such as 2048")
    assert says(*train, "--vocab-size", "9")[0] == 2
    assert says("train", tmp_path / "no.txt", "--vocab-size", "300", "--out", tmp_path / "out") == (
        1,
        "TMP/no.txt: cannot be read: No such file or directory",
    )
    assert says("train", tmp_path / "a.txt", "--vocab-size", "300", "--out", tmp_path)[0] == 2
    assert says()[0] == says("train")[0] == says(*train, "--kind", "words")[0] == 2
