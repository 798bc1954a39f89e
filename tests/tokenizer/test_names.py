"""The one list of a tokenizer's files."""

from __future__ import annotations

from pathlib import Path

from minigen.tokenizer import token_files
from minigen.tokenizer.names import (
    SETTINGS,
    TEMPLATES,
    VOCABULARIES,
    files_there,
    is_text_file,
    rank_files,
)
from minigen.training.data.identity import HASHED


def test_what_runs_have_hashed_stays_as_it_is() -> None:
    assert HASHED == (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "vocab.json",
        "merges.txt",
        "vocab.bpe",
        "encoder.json",
    )
    assert set(HASHED) == {*VOCABULARIES, *SETTINGS}


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in (
        "b.tiktoken",
        "a.tiktoken",
        *VOCABULARIES,
        "tokenizer.model",
        "config.json",
        "model.safetensors",
    ):
        (tmp_path / name).touch()
    (tmp_path / "c.tiktoken").mkdir()
    assert [path.name for path in token_files(tmp_path)] == [
        "a.tiktoken",
        "b.tiktoken",
        *VOCABULARIES,
    ]
    assert rank_files(tmp_path) == [tmp_path / "a.tiktoken", tmp_path / "b.tiktoken"]
    assert files_there(tmp_path, SETTINGS) == []
    texts = [path.name for path in tmp_path.iterdir() if is_text_file(path.name) and path.is_file()]
    assert sorted(texts) == sorted(["b.tiktoken", "a.tiktoken", *VOCABULARIES])
    assert all(is_text_file(name) for name in (*SETTINGS, *TEMPLATES))
