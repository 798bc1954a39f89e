"""The loop: resume to the bit, validations, ends of all kinds; and other people's folders left alone."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.chat.engine import Chat
from minigen.chat.template import find_template
from minigen.errors import MinigenError, UsageError
from minigen.evaluation.perplexity import score_text
from minigen.training import checkpoint
from minigen.training.chat_formats import chat_format
from minigen.training.log import RunLog, read_log
from minigen.training.run import begin, resume

New = Callable[..., Any]
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {"model": "gpt", "dropout": 0.2, "accumulate": 2},
    "llama": {
        "optimizer": "muon",
        "ema": 0.9,
        "schedule": "wsd",
        "mode": "documents",
        "separator": "\n",
    },
    "lstm": {"model": "lstm", "dropout": 0.1, "dtype": "bfloat16"},
}


def losses(run: Path) -> list[Any]:
    return [(row["kind"], row["step"], row["loss"], row.get("smoothed"), row.get("sample"))
            for row in read_log(run) if row["kind"] != "begin"]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_resume_is_exact(new: New, train: New, go_on: New, name: str) -> None:
    straight = new("straight", **MODELS[name])
    train(straight)
    halved = new("halved", **MODELS[name])

    def stop(step: int) -> None:
        if step == 6:  # between two validations
            os.kill(os.getpid(), signal.SIGINT)

    outcome, watcher = train(halved, stop)
    assert (outcome.step, outcome.stopped, watcher.stops) == (6, True, 1)
    one, other = (setup.tokenizer_folder.parent for setup in (straight, halved))
    outcome, _ = go_on(other)
    assert (outcome.step, outcome.stopped) == (8, False)
    for file in (
        "step-000008/model.safetensors",
        "step-000008/training/state.safetensors",
        "model.safetensors",
    ):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    assert losses(one) == losses(other)
    assert len(losses(one)) == 10


def test_a_kill_loses_only_what_came_after_the_checkpoint(new: New, train: New, go_on: New) -> None:
    train(new("straight"))
    setup = new("killed")
    run = setup.tokenizer_folder.parent

    def die(step: int) -> None:
        if step == 7:
            raise SystemExit(9)

    with pytest.raises(SystemExit):
        train(setup, die)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert [row["step"] for row in read_log(run)][-1] == 7
    go_on(run)
    assert losses(run) == losses(run.parent / "straight")


def test_a_run_that_had_no_checkpoint_begins_again(new: New, go_on: New) -> None:
    assert go_on(new().tokenizer_folder.parent)[0].step == 8


def test_what_a_validation_says(new: New, train: New, backend: str) -> None:
    setup = new(steps=12, eval_every=6)
    run = setup.tokenizer_folder.parent
    outcome, watcher = train(setup)
    first, last = watcher.evaluations
    assert outcome.last == last
    assert last.loss < first.loss < math.log(40)
    assert (first.best, last.best) == (True, True)
    model = minigen.load(run, backend)
    batch = next(iter(setup.validation))
    logits = np.concatenate([model.logits(row[None]) for row in batch.ids])
    nats = (
        np.log(np.exp(logits).sum(-1))
        - np.take_along_axis(logits, batch.targets[..., None], -1)[..., 0]
    )
    assert last.loss == pytest.approx((nats * batch.weights).sum() / batch.weights.sum(), abs=1e-4)
    assert last.bits_per_byte == pytest.approx(
        last.loss / math.log(2), rel=1e-6
    )  # a byte a character
    assert last.perplexity == pytest.approx(math.exp(last.loss))
    assert last.gap == last.loss - last.train_loss
    assert len(last.positions) == 8
    assert np.isfinite(last.positions).all()
    assert len(last.sample) == 9
    assert score_text(model, "The cat sat").tokens == 10
    report = watcher.steps[-1]
    assert (report.step, report.tokens, report.eta) == (12, 12 * 64, 0)
    assert report.epoch == pytest.approx(12 * 64 / setup.dataset.train.tokens)
    assert report.mfu > 0


def test_the_best_is_kept_and_published(new: New, train: New) -> None:
    setup = new(steps=12, eval_every=2, keep=1, lr=1.0, warmup=0, clip=0.0)
    run = setup.tokenizer_folder.parent
    with contextlib.suppress(MinigenError):
        train(setup)
    rows = [row for row in read_log(run) if row["kind"] == "evaluation"]
    best = min(rows, key=lambda row: row["loss"])["step"]
    assert checkpoint.pointed(run, "best") == run / f"step-{best:06d}"
    assert (run / "model.safetensors").read_bytes() == (
        run / f"step-{best:06d}/model.safetensors"
    ).read_bytes()
    assert len(checkpoint.steps_in(run)) <= 2


def test_the_averaged_weights_are_what_is_saved(new: New, train: New, backend: str) -> None:
    setup = new(ema=0.99)
    train(setup)
    found = checkpoint.read_state(setup.tokenizer_folder.parent / "step-000008")
    ids = np.arange(12)[None]
    averaged = minigen.load(setup.tokenizer_folder.parent, backend).logits(ids)
    trainer = setup.trainer()
    trainer.restore(found)
    from minigen.layers.param import as_arrays

    for which, same in ((True, True), (False, False)):
        logits = setup.architecture.forward(
            setup.ops, as_arrays(setup.ops, trainer.weights(averaged=which)), setup.ops.asarray(ids)
        )
        assert bool(np.abs(setup.ops.numpy(logits) - averaged).max() < 1e-5) is same


def test_a_loss_that_is_no_number(new: New, train: New) -> None:
    setup = new(lr=1e25, clip=0.0, eval_every=1, warmup=6, steps=20)
    with pytest.raises(MinigenError) as caught:
        train(setup)
    message = str(caught.value)
    assert "lower the learning rate" in message
    assert "\n" not in message


def test_a_loss_that_explodes_keeps_the_last_checkpoint(
    new: New, train: New, monkeypatch: Any
) -> None:
    setup = new(steps=40, eval_every=4, lr=30.0, clip=0.0, warmup=8)
    run = setup.tokenizer_folder.parent
    with pytest.raises(
        MinigenError,
        match=r"lower the learning rate.*the last checkpoint, step-\d+.* (is|are) intact$",
    ):
        train(setup)
    assert checkpoint.newest(run) is not None
    assert minigen.load(run, setup.ops.name).logits([[1, 2]]).shape == (
        1,
        2,
        setup.architecture.vocab_size,
    )


def test_a_full_disk_while_saving(
    new: New, train: New, go_on: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = new()
    run = setup.tokenizer_folder.parent
    whole = checkpoint.write_tensors

    def refuse(path: Path, *rest: Any) -> None:
        if "step-000008" in str(path):
            raise OSError(28, os.strerror(28))
        whole(path, *rest)

    monkeypatch.setattr(checkpoint, "write_tensors", refuse)
    with pytest.raises(
        MinigenError,
        match=r"^cannot write .*step-000008: No space left on device; the last checkpoint, step-000004 in",
    ):
        train(setup)
    monkeypatch.undo()
    assert go_on(run, keep=3)[0].step == 8


def test_what_must_not_change(new: New, train: New, text: Path) -> None:
    setup = new()
    run = setup.tokenizer_folder.parent

    def stop(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    train(setup, stop)
    _, start = resume(run, {"lr": 1e-2, "keep": 5, "data": [str(text)]})
    assert start is not None
    for name, value in {"lr": 0.5, "tokenizer": "bytes", "steps": 80, "model": "gpt"}.items():
        with pytest.raises(
            UsageError, match=rf"^--{name} is .*, but .*run was begun with .*: leave it as it was"
        ):
            resume(run, {name: value})
    settings = (run / "train.toml").read_text()
    (run / "train.toml").write_text(settings.replace("width = 16", "width = 32"))
    with pytest.raises(
        UsageError, match=r"^--width is 32, but .*run was begun with 16: leave it as it was"
    ):
        resume(run, {})
    (run / "train.toml").write_text(settings)
    vocab = (run / "tokenizer/vocab.json").read_text()
    characters = json.loads(vocab)
    (run / "tokenizer/vocab.json").write_text(json.dumps(characters[::-1]))
    with pytest.raises(
        MinigenError,
        match=r"^the tokenizer of .*run has changed since step 4 \(.*tokenizer\): restore it",
    ):
        resume(run, {})
    (run / "tokenizer/vocab.json").write_text(vocab)
    text.write_text(text.read_text().replace("frog", "grog"))
    with pytest.raises(
        MinigenError,
        match=r"^the data set of .*run has changed since step 4 \(.*animals\.txt\): restore",
    ):
        resume(run, {})
    with pytest.raises(
        UsageError, match=r"is not a run: it has no train\.toml; begin one with --out"
    ):
        resume(text.parent, {})


def test_folders_that_are_taken(small: New, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("x")
    with pytest.raises(
        UsageError, match=r"mine is there already, and not empty: name another folder for --out$"
    ):
        begin(small(), tmp_path / "mine")
    assert (tmp_path / "mine/notes").read_text() == "x"
    begin(small(), tmp_path / "run")
    with pytest.raises(
        UsageError, match=r"run has a run already: go on with --resume .*run, or name another"
    ):
        begin(small(), tmp_path / "run")
    with pytest.raises(UsageError):
        begin(small(vocab=3), tmp_path / "failed")
    assert not (tmp_path / "failed").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(MinigenError, match=r"^cannot make .*file/run: Not a directory"):
        begin(small(), tmp_path / "file/run")


def test_one_process_a_run(new: New, train: New) -> None:
    setup = new()
    with (
        RunLog(setup.tokenizer_folder.parent, 0),
        pytest.raises(MinigenError, match=r"is being trained by another"),
    ):
        train(setup)
    train(setup)


def test_from_a_model(new: New, train: New, text: Path, tmp_path: Path, backend: str) -> None:
    first = new("first", model="gpt")
    train(first)
    changes = {
        "from": str(tmp_path / "first"),
        "data": [str(text)],
        "backend": backend,
        "lr": 1e-3,
        "context": 12,
    }
    from minigen.training.run import make_config

    settings = {
        "steps": 4,
        "eval_every": 4,
        "warmup": 0,
        "batch": 2,
        "sample_tokens": 0,
        "valid": 0.1,
    }
    setup = begin(make_config({**changes, **settings}), tmp_path / "second")
    assert setup.hub == json.loads((tmp_path / "first/config.json").read_text())
    assert setup.batches.context == 12
    loss = setup.trainer().losses(setup.batches.batch(0)).mean()
    assert loss < first.trainer().losses(setup.batches.batch(0)).mean() - 0.1
    _, watcher = train(setup)
    assert watcher.evaluations[0].sample == ""
    assert "width" not in (tmp_path / "second/train.toml").read_text()
    with pytest.raises(UsageError, match=r"^context is 99: .*first reads at most 16 tokens"):
        begin(make_config({**changes, **settings, "context": 99}), tmp_path / "third")


def test_conversations(new: New, train: New, tmp_path: Path, backend: str) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Who is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
            for n in ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal")]  # fmt: skip
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"data": [str(tmp_path / "chats.jsonl")], "valid": 0.3, "context": 24}
    setup = new("chats", tokenizer="bpe:270", chat="phi3", **source)
    assert setup.batches.batch(0).weights.mean() < 1
    train(setup)
    run = tmp_path / "chats"
    ends = json.loads((run / "generation_config.json").read_text())["eos_token_id"]
    names = setup.tokenizer.special_tokens
    assert ends == [names["<|endoftext|>"], names["<|end|>"]]
    assert minigen.load(run, backend).stop_ids == set(ends)
    template = find_template(run)
    assert template is not None
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert (
        template.render(talk, generate=True)
        == "<|user|>\na<|end|>\n<|assistant|>\nb<|end|>\n<|assistant|>\n"
    )
    chatml = chat_format("chatml")
    assert chatml is not None
    assert chatml.template.render(talk, generate=False) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    )
    chat = Chat(minigen.load(run, backend), settings={"max_tokens": 3, "seed": 1})
    assert names["<|end|>"] in chat.format.stop_ids
    answer = chat.say("Hi")
    for _ in answer:
        pass
    assert answer.finish().role == "assistant"
    with pytest.raises(MinigenError, match=r"a conversation, but no chat format is given"):
        new("no format", tokenizer="bpe:270", **source)
    with pytest.raises(
        UsageError, match=r"^the tokenizer has no <\|system\|>, which the chat format phi3 writes"
    ):
        new("no tokens", tokenizer="bytes", chat="phi3", **source)


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[Any] = []

    def log(self, values: Any, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.logged.append("finished")


def test_other_programs_that_follow(
    new: New, train: New, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake, asked = FakeRun(), {}
    module = types.ModuleType("wandb")
    module.init = lambda **settings: asked.update(settings) or fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    train(new(wandb="minis"))
    assert asked["project"] == "minis"
    assert fake.logged[-1] == "finished"
    steps = {step: values for step, values in fake.logged[:-1] if "valid/loss" in values}
    assert steps.keys() == {4, 8}
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        MinigenError, match=r"^--wandb needs wandb, which cannot be imported \(.*\): pip"
    ):
        train(new("other", wandb="minis"))


def test_tensorboard(new: New, train: New, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[Any] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert Path(folder) == tmp_path / "run/tensorboard"

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

        def flush(self) -> None:
            written.append("flushed")

        close = flush

    module = types.ModuleType("tensorboard.summary")
    module.Writer = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard.summary", module)
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    train(new(tensorboard=True))
    assert ("train/loss", 3) in written
    assert ("valid/bits_per_byte", 8) in written
    assert written[-1] == "flushed"


def test_the_log_has_every_number(new: New, train: New) -> None:
    setup = new(log_every=3)
    train(setup)
    rows = read_log(setup.tokenizer_folder.parent)
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 3, 6, 8]
    assert rows[0]["flops_per_token"] > 6 * 1000
    assert re.fullmatch(r"[0-9a-f]{64}", rows[0]["data"])
    row = next(row for row in rows if row["kind"] == "evaluation")
    assert row.keys() >= {
        "loss",
        "perplexity",
        "bits_per_byte",
        "train_loss",
        "gap",
        "positions",
        "sample",
        "best",
    }


def test_the_vocabulary_of_gpt2(
    shared: Path, small: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from minigen.training.data import open_tokenizer
    from minigen.training.tokenizer_files import make_tokenizer

    folder = shared / "tokenizers/gpt2"
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda repo, name, **_: str(folder / name)
    )
    make_tokenizer(small(tokenizer="gpt2"), tmp_path / "tokenizer")
    found = open_tokenizer(tmp_path / "tokenizer")
    assert (found.encode("Hello there"), found.eos_id, found.vocab_size) == (
        [15496, 612],
        50256,
        50257,
    )

    def unreachable(*_: Any, **settings: Any) -> None:
        raise OSError("no way\nto the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(
        MinigenError,
        match=r"^cannot download the tokenizer of openai-community/gpt2 \(no way\): give",
    ):
        make_tokenizer(small(tokenizer="gpt2"), tmp_path / "other")
