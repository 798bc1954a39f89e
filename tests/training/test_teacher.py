"""A teacher: the loss to the digit, the same on both backends; its text, written once; and what cannot be learned."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen.backends as backends
from minigen.backends import Backend, get_backend
from minigen.backends.training import SoftTargets
from minigen.errors import MinigenError, SourceError, UsageError
from minigen.families import HubConfig, find_family
from minigen.layers.param import as_arrays, initialise
from minigen.training import doctor, teacher
from minigen.training.batch import Batch
from minigen.training.checkpoint import pointed, read_position
from minigen.training.config import TeacherConfig
from minigen.training.data import open_tokenizer
from minigen.training.log import read_log
from minigen.training.run import begin, make_config, resume
from minigen.training.setup import Setup
from minigen.training.teacher import TEXT, Teacher
from minigen.training.toml_file import read_toml, to_toml
from minigen.training.trainer import Optimizer, Trainer
from minigen.tree import flatten, unflatten

New = Callable[..., Any]
GPT = {
    "model_type": "gpt2",
    "vocab_size": 19,
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 1,
    "n_positions": 12,
}
LLAMA = {
    "model_type": "llama", "vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 12, "tie_word_embeddings": False,
}  # fmt: skip
LSTM = {
    "model_type": "lstm_lm",
    "vocab_size": 17,
    "embedding_size": 12,
    "hidden_size": 12,
    "num_layers": 1,
}
CONFIGS: dict[str, dict[str, Any]] = {"gpt": GPT, "llama": LLAMA, "lstm": LSTM}
TOKENS = 17  # of the tokenizer; the other vocabularies are padded


def drawn(name: str, seed: int, spread: float = 1.0) -> tuple[Any, dict[str, Any]]:
    architecture = find_family(CONFIGS[name]).build(HubConfig(CONFIGS[name]))
    return architecture, {
        path: x * np.float32(spread)
        for path, x in flatten(initialise(architecture.shapes(), seed)).items()
    }


def soft_targets(
    ops: Backend, name: str, weight: float = 0.4, temperature: float = 2.0
) -> SoftTargets:
    """A teacher with opinions: its weights are larger than those that a model begins with."""
    architecture, params = drawn(name, 8, 6.0)
    return SoftTargets(
        architecture.forward, as_arrays(ops, unflatten(params)), TOKENS, weight, temperature
    )


def make(
    ops: Backend,
    name: str,
    soft: SoftTargets | None,
    optimizer: Optimizer | None = None,
    **more: Any,
) -> Trainer:
    architecture, params = drawn(name, 3)
    return Trainer(
        ops, architecture, unflatten(params), optimizer or Optimizer(), teacher=soft, **more
    )


def batch(number: int, rows: int = 4, T: int = 10) -> Batch:
    rng = np.random.default_rng([7, number])
    ids, weights = rng.integers(0, TOKENS, (rows, T + 1)), rng.random((rows, T)) < 0.7
    return Batch(ids[:, :-1], ids[:, 1:], weights.astype(np.float32))


def log_softmax(x: Any) -> Any:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_numpy(ops: Backend, trainer: Trainer, name: str, soft: SoftTargets, one: Batch) -> float:
    """The mean of (1 - w) nats + w T^2 KL(teacher || student), in float64."""
    architecture, _ = drawn(name, 3)
    ids = ops.asarray(one.ids)
    own = ops.numpy(architecture.forward(ops, as_arrays(ops, trainer.weights()), ids)).astype(
        np.float64
    )
    taught = ops.numpy(soft.forward(ops, soft.params, ids)).astype(np.float64)[..., :TOKENS]
    nats = -np.take_along_axis(log_softmax(own), one.targets[..., None], -1)[..., 0]
    p, q = log_softmax(taught / soft.temperature), log_softmax(own / soft.temperature)[..., :TOKENS]
    losses = (1 - soft.weight) * nats + soft.weight * soft.temperature**2 * (
        np.exp(p) * (p - q)
    ).sum(-1)
    return float((losses * one.weights).sum() / one.weights.sum())


# -- its probabilities ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "other"), [("gpt", "llama"), ("llama", "lstm"), ("lstm", "gpt")])
@pytest.mark.parametrize(("weight", "temperature"), [(0.4, 2.0), (1.0, 0.5)])
def test_the_loss_is_the_formula(
    ops: Backend, name: str, other: str, weight: float, temperature: float
) -> None:
    soft = soft_targets(ops, other, weight, temperature)
    trainer, one = make(ops, name, soft), batch(0)
    want = by_numpy(ops, trainer, name, soft, one)
    plain = make(ops, name, None)
    assert abs(want - plain.step([one], 1e-3, 0).loss) > 0.05
    nats = make(ops, name, None).losses(one)
    assert np.array_equal(trainer.losses(one), nats)  # a validation knows no teacher
    assert trainer.step([one], 1e-3, 0).loss == pytest.approx(want, rel=2e-6)


@pytest.mark.parametrize(("name", "other"), [("gpt", "llama"), ("lstm", "gpt")])
def test_gradients_against_differences(ops: Backend, name: str, other: str) -> None:
    """Along the gradient of each weight, of the loss as NumPy has it."""
    soft, one = soft_targets(ops, other), batch(0)
    trainer = make(ops, name, soft)
    training: Any = trainer.gradients
    training.add_gradients(one.ids, one.targets, one.weights, float(one.weights.sum()), 0)
    if ops.name == "torch":
        gradient = {
            leaf.path: x.cpu().numpy()
            for leaf, x in zip(training.leaves, training.parts, strict=True)
        }
    else:
        gradient = {path: np.array(x) for path, x in training.gradient.items()}
    architecture, start = drawn(name, 3)
    for path, g in gradient.items():
        way = g / (np.linalg.norm(g) + 1e-12)
        step = float(np.clip(0.01 * np.linalg.norm(start[path]), 0.003, 0.02))
        found = []
        for sign in (1, -1):
            moved = start | {path: (start[path] + sign * step * way).astype(np.float32)}
            other_trainer = Trainer(ops, architecture, unflatten(moved), Optimizer())
            found.append(by_numpy(ops, other_trainer, name, soft, one))
        assert (found[0] - found[1]) / (2 * step) == pytest.approx(
            float((g * way).sum()), rel=0.01, abs=2e-4
        ), path


@pytest.mark.parametrize(("name", "other"), [("gpt", "llama"), ("llama", "lstm"), ("lstm", "gpt")])
def test_both_backends_learn_alike(name: str, other: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    curves = []
    for backend in backends.BACKENDS:
        ops = get_backend(backend, "cpu", "float32")
        trainer = make(ops, name, soft_targets(ops, other), Optimizer(ema=0.9))
        steps = [trainer.step([batch(n), batch(n + 100)], 3e-3, n) for n in range(20)]
        after = [trainer.losses(batch(99), averaged=averaged).mean() for averaged in (False, True)]
        curves.append([x for step in steps for x in (step.loss, step.grad_norm)] + after)
    assert np.abs(np.subtract(*curves)).max() < 1e-4
    assert curves[0][38] < curves[0][0]


def test_a_model_that_is_its_teacher_has_nothing_to_learn(ops: Backend) -> None:
    architecture, params = drawn("gpt", 3)
    soft = SoftTargets(
        architecture.forward, as_arrays(ops, unflatten(params)), GPT["vocab_size"], 1.0, 2.0
    )
    found = make(ops, "gpt", soft).step([batch(0)], 1e-3, 0)
    assert abs(found.loss) < 1e-6
    assert found.grad_norm < 1e-5


def test_the_teacher_drops_nothing(ops: Backend) -> None:
    soft, rates = soft_targets(ops, "gpt"), []

    def spy(own: Any, params: Any, ids: Any) -> Any:
        rates.append(own.rate)
        return soft.forward(own, params, ids)

    losses = [
        make(ops, "llama", replace(soft, forward=spy), dropout=0.3, seed=seed)
        .step([batch(0)], 1e-3, 0)
        .loss
        for seed in (1, 1, 2)
    ]
    assert set(rates) == {0.0}
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("name", "other"), [("gpt", "llama"), ("lstm", "lstm")])
def test_bfloat16_learns_nearly_the_same(backend: str, device: str, name: str, other: str) -> None:
    curves = []
    for dtype in ("float32", "bfloat16"):
        ops = get_backend(backend, device, dtype)
        trainer = make(ops, name, soft_targets(ops, other))
        curves.append([trainer.step([batch(n)], 3e-3, n).loss for n in range(10)])
    assert 1e-6 < np.abs(np.subtract(*curves)).max() < 0.1


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # torch's own, when its compiler is imported
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "other"), [("gpt", "lstm")]
)  # test_trainer.py compiles each kind alone
def test_compiled(backend: str, name: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch traces only: its C++ compiler takes half a minute."""
    if backend == "torch":
        torch = pytest.importorskip("torch")
        torch.compiler.reset()
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    elif shutil.which("c++") is None:
        pytest.skip("mlx compiles with a C++ compiler, and there is none")
    ops = get_backend(backend, "cpu", "float32")
    curves = [
        [trainer.step([batch(n)], 3e-3, n).loss for n in range(4)]
        for trainer in (
            make(ops, name, soft_targets(ops, other), compile=flag) for flag in (False, True)
        )
    ]
    assert np.abs(np.subtract(*curves)).max() < 1e-5


# -- a run ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def taught(new: New, train: New, tmp_path: Path) -> Path:
    """A run to learn from, over the characters of the text."""
    train(new("master", model="gpt", steps=4, sample_tokens=0))
    return tmp_path / "master"


@pytest.fixture
def learn(small: New, tmp_path: Path) -> Callable[..., Setup]:
    """learn("run", teacher=...): a run that has begun, with the tokenizer that its teacher brings."""

    def make(name: str, **changes: Any) -> Setup:
        settings = {
            key: x for key, x in small().values().items() if x != make_config({}).values()[key]
        }
        if "tokenizer" not in changes:
            del settings["tokenizer"]
        return begin(make_config({**settings, "sample_tokens": 0, **changes}), tmp_path / name)

    return make


def losses(run: Path) -> list[Any]:
    return [
        (row["kind"], row["step"], row["loss"]) for row in read_log(run) if row["kind"] != "begin"
    ]


def test_a_weight_of_zero_is_no_teacher(
    learn: New, train: New, taught: Path, tmp_path: Path
) -> None:
    train(learn("plain", tokenizer="char", dropout=0.1))
    train(learn("zero", teacher=str(taught), teacher_weight=0, dropout=0.1))
    train(learn("some", teacher=str(taught), dropout=0.1))
    assert losses(tmp_path / "plain") == losses(tmp_path / "zero")
    weights = [
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "zero", "some")
    ]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    "model", [{"model": "llama", "accumulate": 2, "ema": 0.9}, {"model": "gru", "dropout": 0.2}]
)
def test_resume_is_exact(
    learn: New, train: New, go_on: New, taught: Path, tmp_path: Path, model: Any
) -> None:
    settings = {**model, "teacher": str(taught), "teacher_temperature": 2.0, "teacher_tokens": 60}
    train(learn("straight", **settings))
    halved = learn("halved", **settings)
    written = (tmp_path / "halved" / TEXT).stat()

    def stop(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    assert train(halved, stop)[0].stopped
    assert go_on(tmp_path / "halved", teacher=os.path.relpath(taught))[0].step == 8
    one, other = tmp_path / "straight", tmp_path / "halved"
    for file in ("step-000008/model.safetensors", "step-000008/training/state.safetensors", TEXT):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    assert losses(one) == losses(other)
    assert (other / TEXT).stat() == written  # not again


def test_a_teacher_that_changed_is_refused(
    learn: New, train: New, new: New, taught: Path, tmp_path: Path
) -> None:
    setup = learn("run", teacher=str(taught))
    train(setup, lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None)
    folder = pointed(tmp_path / "run", "latest")
    assert folder is not None
    assert read_position(folder).teacher == setup.teacher != ""
    with pytest.raises(
        UsageError, match=r"^--teacher-weight is 0\.7, but .*run was begun with 0\.5: leave it"
    ):
        resume(tmp_path / "run", {"teacher_weight": 0.7})
    train(new("another", model="gpt", steps=4, seed=2, sample_tokens=0))
    weights = (taught / "model.safetensors").read_bytes()
    (taught / "model.safetensors").unlink()  # its checkpoint has the same file by another name
    shutil.copyfile(tmp_path / "another/model.safetensors", taught / "model.safetensors")
    with pytest.raises(
        MinigenError,
        match=r"^the teacher of .*run has changed since step 2 \(.*master\): restore it",
    ):
        resume(tmp_path / "run", {})
    (taught / "model.safetensors").write_bytes(weights)
    resume(tmp_path / "run", {})
    taught.rename(tmp_path / "away")
    with pytest.raises(SourceError, match=r"^cannot load the teacher: no such folder: .*master$"):
        resume(tmp_path / "run", {})


def test_a_checkpoint_from_before_there_were_teachers(new: New, train: New, tmp_path: Path) -> None:
    train(new("run"), lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 2 else None)
    place = tmp_path / "run/step-000002/training/position.json"
    text = place.read_text()
    known = json.loads(text)
    del known["teacher"]
    known["config"] = {
        name: x for name, x in known["config"].items() if not name.startswith("teacher")
    }
    place.write_text(json.dumps(known))
    assert resume(tmp_path / "run", {})[1] is not None


def test_the_student_takes_the_teachers_tokenizer(
    learn: New, taught: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    setup = learn("run", teacher="master")
    assert setup.config.teacher.model == setup.config.data.tokenizer == str(taught)
    assert setup.tokenizer.kind == "characters"
    assert setup.soft is not None
    saved = make_config({}, None, tmp_path / "run/train.toml")
    assert saved == setup.config
    assert make_config({"teacher": "master"}, "shakespeare").data.tokenizer == "master"
    assert make_config({"teacher": "master", "tokenizer": "char"}).data.tokenizer == "char"
    assert (
        make_config({"teacher": "master", "from": "other"}).data.tokenizer
        == make_config({}).data.tokenizer
    )
    (tmp_path / "mine.toml").write_text('[teacher]\nteacher = "master"\nteacher_weight = 1\n')
    assert read_toml(tmp_path / "mine.toml") == {"teacher": str(taught), "teacher_weight": 1.0}
    assert "teacher" not in to_toml(make_config({}))


def test_what_is_the_same_tokenizer(ops: Backend, new: New, taught: Path, tmp_path: Path) -> None:
    """A folder may say more beside it; one token that differs is another."""
    setup = new("other", tokenizer="bpe:270")
    source = setup.tokenizer_folder
    master = Teacher(TeacherConfig(), source, ops)
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    (copy / "generation_config.json").write_text('{"temperature": 0.5}')
    assert master.has_same_tokens(open_tokenizer(source), source)
    assert master.has_same_tokens(open_tokenizer(copy), copy)
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace("<|endoftext|>", "<|endofthis|>"))
    assert not master.has_same_tokens(open_tokenizer(copy), copy)
    assert not master.has_same_tokens(open_tokenizer(taught), taught)


def test_doctor(learn: New, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FIT_STEPS", 60)
    monkeypatch.setattr(doctor, "FIT_ROWS", 1)
    monkeypatch.setattr(doctor, "FIT_SHARE", 0.6)
    monkeypatch.setattr(doctor, "TEACHER_TOKENS", 30)
    setup = learn(
        "run", teacher=str(taught), teacher_weight=0.9, teacher_temperature=3.0, dropout=0.1
    )
    assert [check for check in doctor.checks(setup, tmp_path / "run") if not check.passed] == []
    asked: list[int] = []
    monkeypatch.setattr(
        Teacher,
        "documents",
        lambda self, *_: asked.append(self.settings.tokens) or ["The cat sat."],
    )
    found = next(doctor.examine(setup.config.replace(teacher_tokens=10**9)))
    assert (found.passed, asked) == (True, [30])


def test_a_loss_above_guessing_is_no_explosion(learn: New, train: New, taught: Path) -> None:
    """T^2 KL may be far above ln V before a student knows anything."""
    setup = learn(
        "run",
        teacher=str(taught),
        teacher_weight=1.0,
        teacher_temperature=4.0,
        steps=12,
        lr=1e-4,
        batch=2,
    )
    soft = setup.soft
    assert soft is not None
    V = setup.architecture.vocab_size
    sure = replace(soft, forward=lambda ops, p, ids: 400 * soft.forward(ops, p, ids))
    outcome, watcher = train(replace(setup, soft=sure))
    assert outcome.step == 12
    assert watcher.steps[-1].smoothed > math.log(V) + 2


# -- its text ---------------------------------------------------------------------------------------------------------
def texts_of(tokens: Any, tokenizer: Any) -> list[str]:
    return [
        tokenizer.decode(tokens.read(int(d["start"]), int(d["tokens"]))[0].tolist())
        for d in tokens.index
    ]


def test_documents(make_bigram: New, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a function of the seed and its number, on either backend, however many are written at once."""
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    folder, found = make_bigram(context=40), []
    for backend, rows in (("torch", 64), ("mlx", 64), ("torch", 3)):
        monkeypatch.setattr(teacher, "ROWS", rows)
        seen: list[tuple[int, int]] = []
        master = Teacher(TeacherConfig(tokens=300), folder, get_backend(backend, "cpu", "float32"))
        found.append(
            list(master.documents(5, lambda done, total, seen=seen: seen.append((done, total))))
        )
        assert seen == sorted(seen)
        assert seen[-1] == (300, 300)
    assert found[0] == found[1] == found[2]
    assert math.ceil(300 / 39) < len(found[0]) < 60  # the context is not all that ends one
    assert len(set(found[0])) > 5
    assert not any("<|" in text for text in found[0])
    assert found[0] != list(replace(master, settings=TeacherConfig(tokens=300)).documents(6))


@pytest.mark.parametrize("kind", ["llama", "lstm"])
def test_a_teacher_without_start_and_end(
    tiny: New, ops: Backend, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins after a line break, and ends where the context does, or where it must."""
    monkeypatch.setattr(teacher, "LONGEST", 50)
    master = Teacher(TeacherConfig(tokens=200), tiny(kind), ops)
    found = list(master.documents(1))
    assert len(found) == 4
    assert "\0" not in "".join(found)


@pytest.mark.parametrize("separator", ["", "\n"])
def test_another_tokenizer(
    learn: New, train: New, tiny: New, text: Path, tmp_path: Path, separator: str, backend: str
) -> None:
    """All that it wrote is trained on, and nothing of it validates: not of documents, not of one text that is cut."""
    setup = learn(
        "run",
        teacher=str(tiny("llama")),
        teacher_tokens=2500,
        tokenizer="bpe:300",
        separator=separator,
    )
    assert setup.soft is None
    written = (tmp_path / "run" / TEXT).read_bytes().decode()
    parts = [part.strip() for part in written.split(f"\n{separator or '<|endoftext|>'}\n")]
    assert len(written) > len(text.read_text())  # so that a cut of it would show
    wanted = "".join("".join(parts).split())
    both = [texts_of(side, setup.tokenizer) for side in (setup.dataset.train, setup.dataset.valid)]
    assert "".join("".join(both[0]).split()).endswith(wanted)
    own = [line for side in both for line in side if "o'clock" in line]
    assert sorted("".join("".join(own).split())) == sorted("".join(text.read_text().split()))
    assert all(piece in text.read_text() for piece in both[1])
    assert train(setup)[0].step == 8
    again, _ = resume(tmp_path / "run", {})
    assert again.dataset.key == setup.dataset.key


def test_copies_of_what_validates_are_left_out(
    learn: New, tiny: New, text: Path, monkeypatch: Any
) -> None:
    lines = text.read_text().splitlines()
    monkeypatch.setattr(Teacher, "documents", lambda self, *_: [*lines, "A new line."])
    setup = learn(
        "run", teacher=str(tiny("llama")), teacher_tokens=9, tokenizer="char", separator="\n"
    )
    sides = [texts_of(side, setup.tokenizer) for side in (setup.dataset.train, setup.dataset.valid)]
    assert set(sides[1]) <= set(lines)
    assert set(sides[0]) == {*lines, "A new line."} - set(sides[1])
    assert len(sides[0]) == 2 * (len(lines) - len(sides[1])) + 1


def test_text_alone(learn: New, train: New, tiny: New, text: Path, tmp_path: Path) -> None:
    settings = {
        "teacher": str(tiny("llama")),
        "teacher_tokens": 300,
        "tokenizer": "bpe:270",
        "data": [],
    }
    setup = learn("run", **settings, valid_data=[str(text)])
    assert setup.dataset.files == (tmp_path / "run" / TEXT, text)
    assert train(setup)[0].step == 8
    with pytest.raises(
        UsageError, match=r"^no data to validate with: the teacher's text is only for training; nam"
    ):
        learn("none", **settings)
    assert not (tmp_path / "none").exists()


def test_a_writer_that_is_killed_leaves_nothing(
    learn: New, tiny: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Teacher.documents

    def dies(self: Teacher, *rest: Any) -> Any:
        yield next(iter(whole(self, *rest)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Teacher, "documents", dies)
    config = TeacherConfig(model=str(tiny("llama")), tokens=300)
    ops = get_backend("auto", "cpu", "float32")
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(KeyboardInterrupt):
        Teacher(config, tiny("llama"), ops).text(place, make_config({}))
    assert list(place.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        learn("run", teacher=config.model, teacher_tokens=300, tokenizer="bpe:270")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(Teacher, "documents", lambda self, *_: iter(["", " \n"]))
    with pytest.raises(
        MinigenError,
        match=r"^the teacher .*llama wrote no text in 300 tokens: ask for more with --te",
    ):
        Teacher(config, tiny("llama"), ops).text(place, make_config({}))
    assert list(place.iterdir()) == []


# -- what cannot be ---------------------------------------------------------------------------------------------------
def test_errors(
    learn: New, new: New, taught: Path, tiny: New, make_model: New, tmp_path: Path
) -> None:
    def refuse(**changes: Any) -> str:
        with pytest.raises(MinigenError) as caught:
            learn("run", **{"teacher": str(taught), **changes})
        assert not (tmp_path / "run").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert (
        refuse(teacher=str(tmp_path / "none"))
        == f"cannot load the teacher: no such folder: {tmp_path / 'none'}"
    )
    assert refuse(tokenizer="bytes") == (
        f"the teacher {taught} has another tokenizer, so it has no probabilities of the student's tokens: drop "
        "--tokenizer to use the teacher's, or add --teacher-tokens N to learn from its text"
    )
    assert refuse(context=17) == (
        f"context is 17, but the teacher {taught} reads at most 16 tokens: lower --context, or name another teacher"
    )
    small = str(make_model("llama", vocab_size=200))
    assert refuse(teacher=small) == (
        f"the teacher {small} has a vocabulary of 200, but its tokenizer has 256 tokens: "
        "name a complete model for --teacher"
    )
    assert refuse(teacher_weight=1.5) == "teacher_weight is 1.5: it must be a number from 0 to 1"
    assert refuse(teacher_weight=-0.1) == "teacher_weight is -0.1: it must be a number from 0 to 1"
    assert refuse(teacher_temperature=0) == "teacher_temperature is 0: it must be a number > 0"
    assert refuse(teacher_tokens=-1) == "teacher_tokens is -1: it must be a whole number >= 0"
    for name in ("weight", "temperature", "tokens"):
        assert refuse(teacher="", **{f"teacher_{name}": 1}) == (
            f"--teacher-{name} is given without a teacher: name one with --teacher, or drop it"
        )


def test_what_is_wrong_is_said_before_it_writes(
    learn: New, tiny: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Teacher, "documents", lambda *_: pytest.fail("it has written"))
    settings = {"teacher": str(tiny("llama")), "teacher_tokens": 9}
    for changes in (
        {"width": 15, "tokenizer": "char"},
        {"context": 65},
        {"vocab": 200},
        {"data": ["none.txt"]},
    ):
        with pytest.raises(MinigenError):
            learn("run", **settings, **changes)
