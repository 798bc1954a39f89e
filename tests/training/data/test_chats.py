"""Which tokens of a conversation are trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minigen.tokenizer import ByteTokenizer, Tokenizer, load_tokenizer
from minigen.training.data import Batches, DataError, Dataset, validation
from minigen.training.data.chats import encode_chat
from minigen.training.data.documents import Chat

USER, BOT, BOT2 = "The cat? <b>", "It's the mat.\n The dog", "the end"
TALK = [
    {"role": "system", "content": "said"},
    {"role": "user", "content": USER},
    {"role": "assistant", "content": BOT},
    {"role": "user", "content": "é"},
    {"role": "assistant", "content": BOT2},
]
CHAT = Chat(TALK, "f.jsonl:1")


def trained(tokenizer: Tokenizer, ids: Sequence[int], weights: Any) -> str:
    return tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w], skip_special=False)


def test_the_assistant_and_what_ends_it(bpe: Tokenizer, make_format: Callable[..., Any]) -> None:
    form = make_format()
    ids, weights, count = encode_chat(CHAT, form, bpe)
    text = form.render(TALK, generate=False)
    assert ids == [*bpe.encode(text, special=True), bpe.eos_id]
    assert trained(bpe, ids, weights) == f"{BOT}<|end|>{BOT2}<|end|>"
    assert count == len(BOT.encode() + BOT2.encode())
    # What a chat reads before an answer is what was trained on before it.
    prompt = bpe.encode(form.render(TALK[:4], generate=True), special=True)
    assert ids[: len(prompt)] == prompt
    assert not weights[len(prompt) - 1]
    assert weights[len(prompt)]


@pytest.mark.parametrize(
    ("head", "tail", "ask", "answers"),
    [
        (
            "{role}:\n",
            "\n",
            "assistant:\n",
            f"{BOT}\n{BOT2}\n",
        ),  # no control token: all that ends a turn
        (
            "<|{role}|>",
            "",
            "<|assistant|>",
            f"{BOT}{BOT2}<|endoftext|>",
        ),  # nothing at all: the end token does
        ("<|{role}|>", "<|endoftext|>", "<|assistant|>", f"{BOT}<|endoftext|>{BOT2}<|endoftext|>"),
    ],
)
def test_other_ends(
    bpe: Tokenizer, make_format: Callable[..., Any], head: str, tail: str, ask: str, answers: str
) -> None:
    ids, weights, _ = encode_chat(CHAT, make_format(head, tail, ask), bpe)
    assert trained(bpe, ids, weights) == answers
    assert ids.count(bpe.eos_id) == (5 if tail == "<|endoftext|>" else 1)


def test_a_tokenizer_that_changes_the_text(make_format: Callable[..., Any], shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "models/stories260K")
    assert tokenizer is not None
    assert tokenizer.kind == "tokenizers"
    form = make_format("\n{role}\n", "</s>", "\nassistant\n")
    ids, weights, _ = encode_chat(CHAT, form, tokenizer)
    assert trained(tokenizer, ids, weights) == f"{BOT}</s>{BOT2}</s>"


def test_what_is_refused(bpe: Tokenizer, make_format: Callable[..., Any]) -> None:
    class Last(type(make_format())):  # type: ignore[misc]
        """As some templates do: only the last turn is told whole."""

        def render(self, messages: Any, *, generate: bool) -> str:
            cut = [{**m, "content": m["content"][:3]} for m in messages[:-1]]
            return str(super().render([*cut, *messages[-1:]], generate=generate))

    class Upper(type(make_format())):  # type: ignore[misc]
        def render(self, messages: Any, *, generate: bool) -> str:
            return str(
                super().render(
                    [{**m, "content": m["content"].upper()} for m in messages], generate=generate
                )
            )

    hostile = Chat([*TALK, {"role": "user", "content": "x<|end|>"}], "f.jsonl:1")
    for chat, form, message in (
        (CHAT, Last(), "changes the text before message 3 when that is added"),
        (CHAT, Upper(), "changes the text of message 3"),
        (
            CHAT,
            make_format("{role}: ", "\n", "assistant: "),
            "begins inside a token, after 'ssistant: '",
        ),
        (CHAT, make_format(ask="other"), "changes the text before message 3"),
        (hostile, make_format(), r"contains the control token '<\|end\|>' as text"),
        (Chat(TALK[2:], "f.jsonl:1"), make_format(), "the first message is the assistant's"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            encode_chat(chat, form, bpe)
        assert str(caught.value).startswith("f.jsonl:1: ")
    encode_chat(
        CHAT, make_format("{role}: ", "\n", "assistant: "), ByteTokenizer()
    )  # bytes merge with nothing


def test_rows_become_masked_batches(
    bpe: Tokenizer,
    bpe_folder: Path,
    write: Callable[..., Path],
    data: Callable[..., Dataset],
    make_format: Any,
) -> None:
    talks = [
        [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"={i}é"}]
        for i in range(30)
    ]
    path = write("chat.jsonl", [{"messages": talk} for talk in talks])
    with pytest.raises(
        DataError, match=r"chat\.jsonl:1: a conversation, but no chat format is given"
    ):
        data(path, tokenizer=bpe, folder=bpe_folder)
    found = data(path, tokenizer=bpe, folder=bpe_folder, chat=make_format(), valid=0.2)
    assert found.train.documents + found.valid.documents == 30
    said = {f"={i}é<|end|>" for i in range(30)}
    seen = []
    for batch in validation(found.valid, 2, 64):
        for row, weights in zip(batch.targets, batch.weights, strict=True):
            seen.append(trained(bpe, row, weights))
    seen = [text for text in seen if text]
    assert len(seen) == found.valid.documents
    assert set(seen) < said
    assert validation(found.valid, 2, 64).bytes == sum(
        len(text.encode()) - len("<|end|>") for text in seen
    )
    batch = Batches(found.train, 4, 40, 0).batch(3)
    assert set(batch.weights.reshape(-1).tolist()) == {0.0, 1.0}
    for row, weights in zip(batch.targets, batch.weights, strict=True):
        assert "?" not in trained(bpe, row, weights)
    other = data(
        path,
        tokenizer=bpe,
        folder=bpe_folder,
        chat=make_format("<|{role}|>", ask="<|assistant|>"),
        valid=0.2,
    )
    assert other.key != found.key


def test_real_chats(
    shared: Path, tmp_path: Path, bpe: Tokenizer, bpe_folder: Path, make_format: Any
) -> None:
    rows = json.loads((shared / "chat/instruction-data.json").read_text())[:100]
    for row in rows:
        talk = [
            {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()},
            {"role": "assistant", "content": row["output"]},
        ]
        ids, weights, _ = encode_chat(Chat(talk, "x"), make_format(), bpe)
        assert trained(bpe, ids, weights) == row["output"] + "<|end|>"
