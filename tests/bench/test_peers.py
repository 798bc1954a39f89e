"""The comparison with peers, with a peer of our own making: its rounds, what is left out and why, ratios, the files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.peers import __main__ as command
from bench.peers import report, subjects
from bench.peers.gguf_file import tensors
from bench.peers.peer import Peer, PeerSession, PeerSubject, missing, refused
from bench.peers.plain_gpt import EVERY, PlainGPT
from minigen.backends import machine
from minigen.benchmark import run
from minigen.benchmark.plan import Case, shape_of
from minigen.benchmark.session import Subject, Timed

TINY = {
    "model_type": "gpt2",
    "vocab_size": 50,
    "n_embd": 8,
    "n_head": 2,
    "n_layer": 1,
    "n_positions": 64,
}
SHAPE = {**shape_of("gpt2"), "config": TINY | {"torch_dtype": "float32"}}


class Counting(Peer):
    """Its token is the number of tokens that it has read."""

    name, packages, dtypes = "counting", ("numpy",), ("float32", "8-bit")
    batches = False

    def load(self) -> None:
        self.ready = True

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Any]:
        state = [list(prompt) for prompt in prompts]
        return [len(row) for row in state], state

    def decode(self, ids: Sequence[int], state: Any) -> Any:
        for row, token in zip(state, ids, strict=True):
            assert token == len(row)  # what it chose comes back
            row.append(token)
        return [len(row) for row in state]

    def best(self, logits: Any) -> list[int]:
        return list(logits)


def subject_of(peer: type[Peer], **changes: Any) -> PeerSubject:
    fields = {**SHAPE, "backend": peer.name, "dtype": "float32", "peer": peer, "threads": 2}
    return PeerSubject(**{**fields, **changes})


def test_a_peer_does_minigens_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ARRAY", dict.fromkeys((False, True), 2**20))
    monkeypatch.setattr(machine, "SIZES", dict.fromkeys((False, True), 32))
    monkeypatch.setattr(machine, "cache_size", lambda: None)
    session = subject_of(Counting).session()
    about = session.begin()
    assert (about["device"], about["dtype"], about["threads"]) == ("cpu", "float32", 2)
    assert session.load() is None
    assert len(session.run(Case("tg", 5, 3)).steps_s) == 5
    assert session.run(Case("pp", 7)).first_token_s is not None
    assert min(session.limits()) > 0
    assert session.memory() > 0


class Here:
    """A worker in this process with a clock of its own: minigen takes 1 s for a token, others 2 s."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def ask(self, what: str, *args: Any) -> Any:
        s = self.subject
        if what == "begin":
            return {
                "device": "cpu",
                "dtype": s.dtype,
                "threads": 2,
                "gpu": None,
                "total_memory": 2**40,
            }
        if what == "run":
            assert s.takes(args[0])
            return Timed(
                args[0].tokens * (2.0 if isinstance(s, PeerSubject) else 1.0), steps_s=[1.0]
            )
        return {"load": None, "memory": 1, "limits": (1e9, 1e9)}[what]

    def close(self) -> None:
        pass


@pytest.fixture
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Worker", Here)
    monkeypatch.setattr(machine, "load", lambda: 0.25)
    monkeypatch.setattr(subjects, "PEERS", {"counting": Counting, "absent": Absent})
    monkeypatch.setattr(command, "PEERS", subjects.PEERS)
    for name in command.THREADS:
        monkeypatch.setenv(name, "1")


class Absent(Counting):
    name, packages = "absent", ("no-such-package",)


@pytest.mark.usefixtures("_scripted")
def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    out = tmp_path / "found"
    words = [
        "--shape",
        "gpt2",
        "--dtype",
        "float32,8-bit,bfloat16",
        "--backend",
        "torch",
        "-r",
        "2",
        "--out",
        str(out),
    ]
    assert command.main([*words, "--threads", "2"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert found == json.loads(out.with_suffix(".json").read_text())
    alone, batch = ("pp512", "tg128 @ d128"), ("tg64 @ d128 b16",)
    wanted = [
        ("torch", dtype, test)
        for dtype in ("float32", "bfloat16", "8-bit")
        for test in alone + batch
    ]
    wanted += [("counting", dtype, test) for dtype in ("float32", "8-bit") for test in alone]
    assert sorted((r["backend"], r["dtype"], r["test"]) for r in found["results"]) == sorted(wanted)
    reasons = {(s["backend"], s["dtype"]): s["reason"] for s in found["skipped"]}
    assert (
        reasons["absent", None] == "no-such-package is not installed: pip install no-such-package"
    )
    assert reasons["counting", "bfloat16"] == "it has no bfloat16 weights on a CPU of its own"
    assert all(f"skipped: {name}" in said.err for name, _ in reasons)
    text = out.with_suffix(".md").read_text()
    assert "| float32 | pp512 | 1.000 | 0.500 (2.00x) |" in text
    assert "| float32 | tg64 @ d128 b16 | 16.00 | - |" in text
    assert "- counting (gpt2 shape bfloat16): it has no bfloat16 weights" in text
    assert "`python -m bench.peers --shape gpt2" in text


@pytest.mark.usefixtures("_scripted")
def test_nothing_to_measure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [
        "--backend",
        "mlx",
        "--shape",
        "qwen2.5-0.5b",
        "--peers",
        "absent",
        "--out",
        str(tmp_path / "f"),
    ]
    assert command.main(words) == 1
    assert capsys.readouterr().err.endswith(
        "bench.peers: nothing was measured: see the reasons above\n"
    )
    assert command.main(["--threads", "0"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_reasons() -> None:
    assert missing(Counting) is None
    assert refused(Counting, "gpt2", "8-bit") is None
    assert refused(PlainGPT, "llama", "float32") == "it has no llama model"
    assert refused(PlainGPT, "gpt2", "4-bit") == "it has no quantized weights on a CPU of its own"
    skips = [
        subjects.Skipped("x", "why", "a", "4-bit"),
        subjects.Skipped("x", "why", "b"),
        subjects.Skipped("y", "no"),
    ]
    assert report.reasons(skips) == ["- x (a 4-bit, b): why", "- y: no"]


def test_groups() -> None:
    """Where MLX is slow, those on it are by themselves, and not asked for large models."""
    fast = subjects.groups(("torch", "mlx"), ["llama.cpp", "mlx-lm"], quick=False, slow_mlx=False)
    assert [(g.backends, g.peers) for g in fast] == [(["torch", "mlx"], ["llama.cpp", "mlx-lm"])]
    slow = subjects.groups(("torch", "mlx"), ["llama.cpp", "mlx-lm"], quick=False, slow_mlx=True)
    assert [(g.backends, g.peers) for g in slow] == [
        (["torch"], ["llama.cpp"]),
        (["mlx"], ["mlx-lm"]),
    ]
    assert "batch" not in slow[1].tests
    found, skipped = subjects.subjects_of("qwen2.5-0.5b", "float32", slow[1], 2, Path())
    assert found == []
    assert [s.backend for s in skipped] == ["minigen mlx", "mlx-lm"]
    assert len(subjects.subjects_of("gpt2", "float32", slow[1], 2, Path())[0]) == 2


def test_the_plain_loop() -> None:
    torch = pytest.importorskip("torch")
    session = subject_of(
        PlainGPT, threads=torch.get_num_threads()
    ).session()  # other tests want as many as there were
    session.begin()
    session.load()
    assert session.run(Case("pp", 9)).seconds > 0
    assert len(session.run(Case("tg", 3, 4)).steps_s) == 3
    timed = session.run(Case("tg", 2 * EVERY, 4))  # one step in EVERY counts for all
    assert len(timed.steps_s) == 2
    assert timed.seconds == pytest.approx(sum(timed.steps_s) * EVERY)
    assert isinstance(session, PeerSession)


@pytest.mark.parametrize("shape", subjects.SHAPES)
def test_a_gguf_file_has_all_weights(shape: str) -> None:
    """As many numbers as minigen's model has."""
    subject = Subject(**shape_of(shape), backend="torch")
    config = subject.config
    names = (
        ("n_layer", "n_embd", "n_positions")
        if config["model_type"] == "gpt2"
        else ("num_hidden_layers", "hidden_size")
    )
    layers, width, *context = (config[name] for name in names)
    heads, kv = config.get("num_attention_heads", 1), config.get("num_key_value_heads", 1)
    inner = config.get("intermediate_size", 4 * width)
    found = dict(tensors(config, layers, width, inner, width * kv // heads, *(context or [0])))
    total = sum(int(rows) * (cols[0] if cols else 1) for rows, *cols in found.values())
    assert total == run.parameters(subject.architecture())
