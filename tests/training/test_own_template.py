"""A model with a chat template of its own, trained further on conversations: in that template, which stays."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.chat.engine import Chat
from minigen.errors import ChatError, UsageError
from minigen.training import chat_formats
from minigen.training.data import open_tokenizer
from minigen.training.run import begin, make_config, resume

New = Callable[..., Any]
TEMPLATE = """{{ bos_token }}{% for m in messages %}{{ '[' + m.role + ']\\n' + m.content|trim + eos_token + '\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '[assistant]\\n' }}{% endif %}"""
DATED = TEMPLATE.replace("{{ bos_token }}", "{{ strftime_now('%d %b %Y') + '\\n' }}")
NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal")


def talks(path: Path, times: int = 1) -> Path:
    said = [
        ("user", "Who is {0}?"),
        ("assistant", " It is {0}.\n"),
        ("user", "Really?"),
        ("assistant", "Yes, {0}!"),
    ]
    rows = [
        {"messages": [{"role": role, "content": text.format(name) * times} for role, text in said]}
        for name in NAMES
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def base(new: New, train: New, tmp_path: Path) -> Path:
    """A small model with this template, in the place and the form that many models of the hub have it."""
    train(new("made", tokenizer="bpe:270", context=128, steps=1, eval_every=1, sample_tokens=0))
    folder = tmp_path / "base"
    folder.mkdir()
    for path in (tmp_path / "made").iterdir():
        if path.suffix in (".json", ".safetensors"):
            shutil.copy(path, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = [
        {"name": "default", "template": TEMPLATE},
        {"name": "tools", "template": "x"},
    ]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=7))
    (folder / "generation_config.json").write_text('{"eos_token_id":   [0, 5]}')
    return folder


@pytest.fixture
def tune(base: Path, tmp_path: Path, backend: str, device: str) -> New:
    """tune("run", ...): a run that has begun with that model, on conversations."""
    path = talks(tmp_path / "talks.jsonl")

    def make(name: str, **changes: Any) -> Any:
        settings = {
            "data": [str(path)], "from": str(base), "backend": backend, "device": device, "context": 128, "batch": 2,
            "steps": 4, "eval_every": 2, "warmup": 1, "valid": 0.2, "sample_tokens": 4, "log_every": 1, **changes,
        }  # fmt: skip
        return begin(make_config(settings), tmp_path / name)

    return make


@pytest.mark.parametrize("lora", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_the_template_is_the_models_own(
    tune: New,
    train: New,
    base: Path,
    tmp_path: Path,
    backend: str,
    lora: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    setup = tune("run", **lora)
    batch = setup.batches.batch(0)
    said = setup.tokenizer.decode(batch.targets[batch.weights > 0].tolist(), skip_special=False)
    assert said.replace("Yes, ", "It is ").count("It is ") == said.count("<|endoftext|>") > 0
    assert not any(word in said for word in ("user", "assistant", "Who", "Really", "\n"))
    train(setup)
    run = tmp_path / "run"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (run / name).read_bytes() == (base / name).read_bytes()
    assert not (run / "chat_template.jinja").exists()
    chat = Chat(minigen.load(run, backend), settings={"max_tokens": 3, "seed": 1})
    assert (chat.format.plain, chat.format.template.source) == (False, TEMPLATE)
    assert len([*chat.say("Who is Ann?")]) > 0
    assert caplog.text == ""


def test_what_is_learned_is_said_in_a_chat(
    tune: New, train: New, tmp_path: Path, backend: str
) -> None:
    """The tokens that a chat reads and writes are those that were trained on."""
    rows = [
        {"messages": [{"role": "user", "content": name}, {"role": "assistant", "content": "Me!"}]}
        for name in NAMES
    ]
    path = tmp_path / "short.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(
        tune("run", data=[str(path)], context=40, steps=40, eval_every=40, lr=4e-2, sample_tokens=0)
    )
    chat = Chat(
        minigen.load(tmp_path / "run", backend), settings={"max_tokens": 20, "temperature": 0}
    )
    answer = chat.say("Bob")
    assert "".join(answer) == "Me!"
    assert answer.finish().runs[-1].finish == "stop"


@pytest.mark.parametrize(
    "changes", [{}, {"lora_rank": 2}, {"teacher": "base"}], ids=["full", "lora", "teacher"]
)
def test_resume_is_exact(
    tune: New, train: New, go_on: New, base: Path, tmp_path: Path, changes: Any
) -> None:
    if "teacher" in changes:
        changes = {"teacher": str(base), "teacher_weight": 0.5, "teacher_tokens": 40}
    train(tune("straight", **changes))
    halved = tune("halved", **changes)
    assert train(halved, lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 3 else None)[
        0
    ].stopped
    shutil.rmtree(os.environ["MINIGEN_DATA_CACHE"])  # so that the tokens are made again
    assert go_on(tmp_path / "halved")[0].step == 4
    weights = "adapter_model.safetensors" if "lora_rank" in changes else "model.safetensors"
    for file in (f"step-000004/{weights}", "step-000004/training/state.safetensors"):
        assert (tmp_path / "straight" / file).read_bytes() == (
            tmp_path / "halved" / file
        ).read_bytes()


def test_a_day_in_the_template_is_the_runs(
    tune: New, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some templates write the date: a run that goes on tomorrow reads what it began with."""
    (base / "chat_template.jinja").write_text(DATED)

    class Later(chat_formats.date):
        @classmethod
        def today(cls) -> Later:
            return cls(2031, 5, 6)

    begun = tune("run", chat_date="2026-01-31")
    text = begun.tokenizer.decode(begun.dataset.train.shard.ids[:20].tolist())
    assert text.startswith("31 Jan 2026\n[user]\n")
    today = tune("today")
    assert today.config.data.chat_date == chat_formats.date.today().isoformat()
    monkeypatch.setattr(chat_formats, "date", Later)
    again, _ = resume(tmp_path / "run", {})
    assert again.dataset.key == begun.dataset.key
    later = tune("later")
    assert later.config.data.chat_date == "2031-05-06"
    assert len({setup.dataset.key for setup in (begun, today, later)}) == 3
    with pytest.raises(UsageError, match=r"^chat_date is 'May': write it as 2026-01-31$"):
        tune("no day", chat_date="May")


def test_another_format_takes_its_place_aloud(
    new: New, train: New, tune: New, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        UsageError, match=r"has no <\|im_start\|>, which the chat format chatml writes"
    ):
        tune("no tokens", chat="chatml")
    train(
        new(
            "chatml",
            tokenizer="bpe:280",
            chat="chatml",
            context=128,
            steps=1,
            eval_every=1,
            sample_tokens=0,
        )
    )
    made = tmp_path / "chatml"
    assert caplog.text == ""
    tune("same", chat="chatml", **{"from": str(made)})  # as it is already
    assert "replaces" not in caplog.text
    (made / "chat_template.jinja").write_text(TEMPLATE)
    run = tune("other", chat="chatml", **{"from": str(made)})
    assert f"--chat chatml replaces the chat template of {made}" in caplog.text
    named = chat_formats.chat_format("chatml")
    assert named is not None
    assert run.model_files()["chat_template.jinja"].decode() == named.template.source


def test_a_template_that_cannot_be_used(tune: New, base: Path, text: Path) -> None:
    (base / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ChatError, match=r"is not valid: line 1"):
        tune("run")
    tune("text alone", data=[str(text)])  # no conversation needs it


def test_conversations_that_are_cut_are_told(
    tune: New, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tune("whole")
    assert caplog.text == ""
    setup = tune("cut", context=40, data=[str(talks(tmp_path / "long.jsonl", 3))])
    lengths = np.concatenate(
        [setup.dataset.train.chat_lengths(), setup.dataset.valid.chat_lengths()]
    )
    assert len(lengths) == len(NAMES)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert (
        "8 of 8 conversations are longer than the context of 40 tokens: they are cut into rows"
        in caplog.text
    )
    assert f"the longest fits into --context {lengths.max()}" in caplog.text


def test_a_folder_of_a_tokenizer_brings_its_template_too(
    new: New, base: Path, tmp_path: Path
) -> None:
    source = {"data": [str(talks(tmp_path / "talks.jsonl"))], "valid": 0.2, "context": 40}
    setup = new("run", tokenizer=str(base), **source)
    assert (setup.batches.batch(0).weights == 0).any()
    assert open_tokenizer(tmp_path / "run/tokenizer").vocab_size == setup.tokenizer.vocab_size
