"""Two processes are one with the batches of both: the same losses, files written once, and all end where one does.

Each launcher is started once, and its processes do everything in a row: starting them is what takes the time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from minigen.backends import join_group
from minigen.backends.group import ALONE, check_backend, launched, what_broke
from minigen.errors import BackendError, UsageError
from minigen.training.log import read_log
from minigen.training.run import resume

from .conftest import SMALL

SECONDS = 200  # for a launch, on a machine that is busy with others
STEPS, HALF = 12, 6

# What each process does: a list of command lines, of which it notes the exit code and what was said.
RANKS = """
import contextlib, io, json, os, signal, sys
from pathlib import Path
from minigen.cli.main import main
from minigen.backends import machine
from minigen.training import checkpoint, loop, run

machine.measure_peak = lambda ops: 1e9
rank = int(os.environ.get("RANK") or os.environ["MLX_RANK"])
fault, words, notes = json.loads(Path(sys.argv[1]).read_text())

def refuse(*arguments, **settings):
    raise AssertionError("only the first process writes")

if rank:
    checkpoint.save = checkpoint.publish = checkpoint.prune = loop.RunLog = loop.trackers = refuse
    run.write = run.make_tokenizer = refuse
whole = loop.Loop.one_step

def one_step(self, step):
    if rank == 1 and self.folder.name == "broken" and step == 2:
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("no room on rank 1")
    whole(self, step)
    if rank == 1 and self.folder.name == "halved" and step == HALF - 1:
        os.kill(os.getpid(), signal.SIGINT)

loop.Loop.one_step = one_step
for command in words:
    if "broken" in command[-1]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of the launcher: what is said first is what is tested
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    with open(f"{notes}-{rank}", "a") as file:
        file.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\\n")
    if "cannot reach each other" in err.getvalue():
        sys.exit(1)
sys.exit(code)
"""


def free_ports() -> int:
    """The first of two ports, one after the other, that nobody listens on now."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                two.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def launcher(backend: str) -> list[str]:
    if backend == "torch":
        pytest.importorskip("torch.distributed.run")
        meet = [
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            "localhost:0",
            "--local-addr",
            "127.0.0.1",
        ]
        return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *meet]
    found = shutil.which(
        "mlx.launch", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if found is None:
        pytest.skip("mlx.launch is not installed")
    ring = [
        "--backend",
        "ring",
        "--hosts",
        "127.0.0.1",
        "-n",
        "2",
        "--starting-port",
        str(free_ports()),
    ]
    return [found, *ring, "--", sys.executable]


def launch(
    backend: str, folder: Path, fault: str, commands: list[list[str]]
) -> list[list[tuple[int, str, str]]]:
    """For each process what its commands returned and said: exit code, stdout, stderr."""
    for attempt in range(3):
        place = folder / f"launch{attempt}"
        place.mkdir()
        (place / "ranks.py").write_text(RANKS.replace("HALF", str(HALF)))
        (place / "words.json").write_text(json.dumps([fault, commands, str(place / "notes")]))
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": loopback,
            "TMPDIR": str(place),
        }
        reader, writer = (
            os.pipe()
        )  # mlx.launch reads its standard input, and spins at the end of one
        process = subprocess.Popen(
            [*launcher(backend), str(place / "ranks.py"), str(place / "words.json")],
            cwd=folder, env=env, stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # torchrun ends its own
            pytest.fail(
                f"{backend}: the processes hang: {process.communicate(timeout=60)[0][-2000:]}"
            )
        finally:
            os.close(reader)
            os.close(writer)
            process.kill()
        files = [place / f"notes-{rank}" for rank in range(2)]
        lines = [file.read_text().splitlines() if file.exists() else [] for file in files]
        found = [[tuple(json.loads(line)) for line in rows] for rows in lines]
        if all(found) and not any(
            "cannot reach each other" in err for rows in found for _, _, err in rows
        ):  # no port was taken
            return found
    pytest.fail(f"{backend}: the processes do not start: {said[-2000:]}")


def losses(run: Path) -> list[Any]:
    rows = [row for row in read_log(run) if row["kind"] != "begin"]
    return [(row["kind"], row["step"], row["loss"], row.get("train_loss", 0.0)) for row in rows]


def apart(one: Path, other: Path) -> float:
    """The largest difference of two runs' losses, as a share of them."""
    rows = list(zip(losses(one), losses(other), strict=True))
    assert all(a[:2] == b[:2] for a, b in rows)
    pairs = [(x, y) for a, b in rows for x, y in zip(a[2:], b[2:], strict=True)]
    return max(abs(x - y) / max(x, 1e-9) for x, y in pairs)


def test_two_processes(
    backend: str, text: Path, tmp_path: Path, new: Callable[..., Any], train: Callable[..., Any],
) -> None:  # fmt: skip
    settings = {**SMALL, "backend": backend, "device": "cpu", "steps": STEPS, "eval_every": HALF}
    dropped = {"dropout": 0.2, "optimizer": "muon", "ema": 0.9, "steps": 4, "eval_every": 4}

    def command(out: str, **changes: Any) -> list[str]:
        flags = [
            (f"--{name.replace('_', '-')}", str(value))
            for name, value in {**settings, **changes}.items()
        ]
        return ["train", str(text), *(word for pair in flags for word in pair), "--out", out]

    fault = "kill" if backend == "mlx" else "error"
    commands = [
        command("straight", backend="auto"), command("halved"), ["train", "--resume", "halved"],
        command("dropped", **dropped), command("missing", tokenizer="nothing"), command("diverged", lr=1e25, clip=0),
        ["train", str(text), "--doctor"], ["train", "--resume", "straight", "--out", "other"], command("broken"),
    ]  # fmt: skip
    first, second = launch(backend, tmp_path, fault, commands)
    assert len(first) == len(commands), first[-1]
    straight, halved, resumed, _, missing, diverged, doctor, mistaken, broken = first

    # The same losses as of one process with the batches of both; with dropout, of one that accumulates them.
    train(new("alone", steps=STEPS, eval_every=HALF, batch=2 * SMALL["batch"]))
    train(new("alone dropped", **dropped, accumulate=2))
    curves = [
        apart(tmp_path / "alone", tmp_path / "straight"),
        apart(tmp_path / "alone dropped", tmp_path / "dropped"),
    ]
    assert len(losses(tmp_path / "straight")) == STEPS + 2
    assert max(curves) < 1e-5

    # The signal came to the second process alone: both stopped after that step, and one saved it.
    assert [(rows[0][0], rows[1][0], rows[2][0], rows[3][0]) for rows in (first, second)] == [
        (0, 130, 0, 0)
    ] * 2
    assert halved[1].endswith(
        f"stopped and saved after step {HALF}: continue with minigen train --resume halved\n"
    )
    assert f"continuing from step {HALF}\n" in resumed[1]
    for file in (
        f"step-{STEPS:06d}/model.safetensors",
        f"step-{STEPS:06d}/training/state.safetensors",
    ):
        assert (tmp_path / "straight" / file).read_bytes() == (
            tmp_path / "halved" / file
        ).read_bytes()
    assert losses(tmp_path / "straight") == losses(tmp_path / "halved")
    assert "processes = 2\n" in (tmp_path / "straight/train.toml").read_text()
    with pytest.raises(
        UsageError,
        match=r"^processes is 2, and there is 1: start 2, which torchrun --nproc-per-node 2",
    ):
        resume(tmp_path / "straight", {})

    # The first process speaks, the second one is silent unless the fault is its own.
    assert f"on {backend} (2 x cpu, float32)" in straight[1]
    assert {(out, err) for _, out, err in [*second[:6], *second[7:]] if "room" not in err} == {
        ("", "")
    }
    assert [code for code, _, _ in second[4:8]] == [1, 1, 2, 1]
    assert (missing[0], missing[1]) == (2, "")
    assert missing[2].startswith("minigen: tokenizer is 'nothing': choose ")
    assert not (tmp_path / "missing").exists()
    assert diverged[0] == 1
    assert diverged[2].endswith("nothing was saved before\n")
    assert diverged[2].count("\n") == 1
    assert mistaken == (
        2,
        "",
        "minigen: --resume continues with the settings of the run: drop --out\n",
    )
    assert doctor[0] == 2
    assert doctor[2].startswith("minigen: --doctor checks in one process: start it without ")

    # One ends, and so does the other.
    assert len(second) == (8 if fault == "kill" else 9)
    assert broken[0] == 1
    assert (
        broken[2]
        .splitlines()[-1]
        .startswith("minigen: process 0 of 2 lost the connection to another one (")
    )
    assert broken[2].endswith("); nothing was saved before\n")


def test_who_started_this(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str, new: Any
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MLX_RANK", "MLX_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    assert (launched(), join_group()) == ("", ALONE)
    monkeypatch.setenv("MLX_RANK", "0")
    assert launched() == "mlx"
    (tmp_path / "hosts").write_text("\n")
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts"))
    assert launched() == ""
    monkeypatch.delenv("MLX_RANK")
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert launched() == "torch"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() == ""

    class Two(type(ALONE)):  # type: ignore[misc]
        size, backend = 2, "torch"

    assert check_backend(ALONE, "mlx") == "mlx"
    assert check_backend(Two(), "auto") == "torch"
    with pytest.raises(
        UsageError,
        match=r"^backend is mlx, and torchrun started these 2 processes: start them with mlx",
    ):
        check_backend(Two(), "mlx")
    with pytest.raises(UsageError, match=r"^processes is 3, and there is 1: start 3"):
        new(processes=3)
    assert (
        what_broke(RuntimeError("[/a/b.cc:12] Reset by peer [1.2.3.4]:5. This is\nlong"))
        == "Reset by peer [1.2.3.4]:5"
    )
    said = "NCCL error in: /a/NCCLUtils.cpp:94, remote process exited (run with NCCL_DEBUG=INFO for details), NCCL 2\n"
    assert what_broke(RuntimeError(said)) == "NCCL: remote process exited"


def test_a_ring_that_hangs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlx.core")
    module = import_module("minigen.backends.mlx.group")
    group = module.MLXGroup.__new__(module.MLXGroup)
    group.rank, group.size, group.deadline = 1, 2, 0.0
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    group.watch()
    assert ended == [1]
    assert (
        capfd.readouterr().err
        == "minigen: process 1 of 2 lost the connection to another one (it does not answer)\n"
    )


def test_a_gpu_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    module = import_module("minigen.backends.torch.group")
    group = module.TorchGroup.__new__(module.TorchGroup)
    group.rank, group.size, group.gpu, group.cuda = 1, 2, 1, False
    assert group.place(None) == group.place("cpu") == "cpu"
    with pytest.raises(
        UsageError, match=r"^device is cuda:0, which 2 processes cannot share: choose cpu, or cuda"
    ):
        group.place("cuda:0")
    group.cuda, used = True, []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    assert group.place(None) == group.place("cuda") == "cuda:1"
    assert used == [1, 1]
    group.gpu = 0  # the one that this process is shown
    assert group.place(None) == "cuda:0"
    group.gpu = None
    with pytest.raises(
        BackendError, match=r"has no GPU of its own: it sees 2, which others have; start as many"
    ):
        group.place(None)
