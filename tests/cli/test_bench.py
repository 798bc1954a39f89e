"""`minigen bench` as it is typed: every way of showing, what is refused, and files compared and drawn."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from minigen.backends import machine
from minigen.benchmark import run, training
from minigen.benchmark.run import Result
from minigen.benchmark.session import Session, Subject
from minigen.benchmark.training import TrainingSession
from minigen.errors import UsageError

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]
SMALL = ("-p", "8", "-n", "4", "-r", "2")


class Here(Session):
    """A worker in this process, so that a test need not wait for another."""

    def ask(self, what: str, *args: Any) -> Any:
        return getattr(self, what)(*args)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Worker", Here)
    monkeypatch.setattr(Here, "limits", lambda self: (1e10, 1e11))
    monkeypatch.setattr(machine, "load", lambda: 0.25)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)


def test_json(run_cli: Run, tiny: Tiny, backend: str, device: str) -> None:
    words = (
        tiny("llama"),
        *SMALL,
        "-d",
        "0,16",
        "-b",
        "1,2",
        "--backend",
        backend,
        "--device",
        device,
    )
    code, out, err = run_cli("bench", *words, "-o", "json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert list(found) == ["machine", "results"]
    about = found["machine"]
    assert {"cpu", "cores", "memory_bytes", "gpu", "cache_bytes", "system", "versions"} < set(about)
    assert (about["load_start"], about["load_end"], about["cores"]) == (0.25, 0.25, 2)
    assert backend in about["versions"]
    tests = [
        "pp8",
        "tg4",
        "pp8 @ d16",
        "tg4 @ d16",
        "pp8 b2",
        "tg4 b2",
        "pp8 @ d16 b2",
        "tg4 @ d16 b2",
    ]
    assert [row["test"] for row in found["results"]] == tests
    for row in found["results"]:
        assert list(row) == [field.name for field in fields(Result)]
        assert len(row["samples_tps"]) == 2
        assert min(row["samples_tps"]) <= row["median_tps"] <= max(row["samples_tps"])
        assert row["share"] == pytest.approx(row["median_tps"] / row["limit_tps"])
        assert (
            (row["first_token_ms"] is None)
            == row["test"].startswith("tg")
            == (row["p50_ms"] is not None)
        )
        assert (row["model"], row["backend"], row["dtype"]) == (
            str(tiny("llama")),
            backend,
            "float32",
        )
        assert row["peak_memory_bytes"] > 0


def test_table(run_cli: Run, tiny: Tiny, backend: str, device: str) -> None:
    where = ("--backend", backend, "--device", device)
    code, out, err = run_cli("bench", tiny("llama"), *SMALL, *where)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0].startswith(machine.cpu_name()) or device != "cpu"
    assert lines[1].endswith("load average 0.25 before, 0.25 after")
    assert f"{backend} float32 ({device}" in lines[2]
    assert "limits 10 GB/s read, 100 GFLOP/s" in lines[2]
    at = lines.index("") + 1
    heading = ["test", "tokens/s", "mean ± sd", "first ms", "p50 ms", "p95 ms", "limit", "share"]
    assert re.split(" {2,}", lines[at]) == heading
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["pp8", "tg4"]
    assert len({len(line) for line in lines[at : at + 3]}) == 1  # aligned
    # Several models: what they differ by stands in front.
    code, out, _ = run_cli(
        "bench", tiny("llama"), tiny("gpt2"), *SMALL, "--dtype", "float32,bfloat16", *where
    )
    rows = out[out.index("\n\n") :].strip().splitlines()
    assert rows[0].split()[:3] == ["model", "dtype", "test"]
    assert [tuple(row.split()[:3]) for row in rows[1:9]] == [
        (str(tiny(name)), dtype, test)
        for name in ("llama", "gpt2")
        for dtype in ("float32", "bfloat16")
        for test in ("pp8", "tg4")
    ]


def test_quantized(
    run_cli: Run,
    make_model: Callable[..., Path],
    tmp_path: Path,
    backend: str,
    device: str,
    tiny: Tiny,
) -> None:
    """On load, of random weights and as they are stored: by name, and with the bytes that are read."""
    folder, where = make_model("gpt2", n_embd=64), ("--backend", backend, "--device", device)
    code, out, err = run_cli("bench", folder, *SMALL, *where, "--quant", "none,8,4", "-o", "json")
    assert (code, err) == (0, "")
    rows = [row for row in json.loads(out)["results"] if row["test"] == "tg4"]
    assert [row["quant"] for row in rows] == ["", "q8", "q4"]
    matrices = 256 * 64 + 2 * 12 * 64 * 64
    sizes = [row["weights_bytes"] - rows[0]["weights_bytes"] for row in rows]
    assert sizes == [0, matrices * (1 + 4 / 32 - 4), matrices * (0.5 + 4 / 32 - 4)]
    assert [row["bytes_per_token"] - rows[0]["bytes_per_token"] for row in rows] == sizes
    assert run_cli("convert", folder, tmp_path / "q", "--quant", "mixed")[0] == 0
    code, out, err = run_cli("bench", tmp_path / "q", *SMALL, *where, "-o", "json")
    assert (code, err) == (0, "")
    assert {row["quant"] for row in json.loads(out)["results"]} == {"mixed"}
    code, out, err = run_cli("bench", "--shape", "stories-3m", *SMALL, *where, "--quant", "none,4")
    assert (code, err) == (0, "")
    table = [line.split()[:2] for line in out[out.index("\n\n") :].strip().splitlines()]
    assert table[:5] == [
        ["quant", "test"],
        ["-", "pp8"],
        ["-", "tg4"],
        ["q4", "pp8"],
        ["q4", "tg4"],
    ]
    code, out, err = run_cli("bench", tmp_path / "q", *SMALL, *where, "--quant", "8")
    assert (code, out) == (2, "")
    assert (
        err == f"minigen: {tmp_path / 'q'} is quantized already (mixed): leave --quant out, or "
        "use the unquantized model\n"
    )


def test_a_quantized_cache(run_cli: Run, tiny: Tiny, backend: str) -> None:
    where = ("bench", tiny("llama"), "--backend", backend, "--device", "cpu", "--kv-bits", "none,8")
    code, out, err = run_cli(*where, "-p", "0", "-n", "2", "-d", "8", "-r", "1", "-o", "json")
    assert code == 0, err
    rows = json.loads(out)["results"]
    assert [row["quant"] for row in rows] == ["", "kv8"]
    assert rows[1]["bytes_per_token"] < rows[0]["bytes_per_token"]
    code, _, err = run_cli(*where, "--train")
    assert (code, "--kv-bits does not go with --train" in err) == (2, True)


def test_a_narrow_terminal(
    run_cli: Run, tiny: Tiny, backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minigen.cli.bench.report.screen", lambda: (80, False))
    words = (*SMALL, "--dtype", "float32,bfloat16", "--backend", backend, "--device", device)
    out = run_cli("bench", tiny("llama"), *words, "-d", "0,16", "-b", "1,8")[1]
    blocks = out.split("\n\n")[1:3]
    assert [block.splitlines()[0] for block in blocks] == [
        "float32",
        "bfloat16",
    ]  # above the numbers, not beside them
    tables = [line for block in blocks for line in block.splitlines()[1:]]
    assert len(tables) == 2 * (1 + 8)
    assert max(map(len, tables)) <= 80
    assert len({len(line) for line in tables}) == 1
    assert not any("…" in line for line in tables)


def test_other_outputs(run_cli: Run, tiny: Tiny, backend: str, device: str) -> None:
    words = ("bench", tiny("gpt2"), *SMALL, "--backend", backend, "--device", device, "-o")
    code, out, err = run_cli(*words, "csv")
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["test"] for row in rows] == ["pp8", "tg4"]
    assert len(rows[0]["samples_tps"].split()) == 2
    code, out, _ = run_cli(*words, "jsonl")
    objects = [json.loads(line) for line in out.splitlines()]
    assert [row["test"] for row in objects] == ["pp8", "tg4"]
    assert objects[0]["machine"]["cores"] == 2
    code, out, _ = run_cli(*words, "md")
    lines = out.splitlines()
    assert all(
        line.startswith("| ") and line.count("|") == lines[0].count("|") for line in lines[:4]
    )
    assert re.fullmatch(r"\| --- (\| -+:? )+\|", lines[1])
    assert lines[4] == ""
    assert all(line.startswith("- ") for line in lines[5:])


def test_the_marks_are_explained(
    run_cli: Run, tiny: Tiny, backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Here, "limits", lambda self: (1e3, 1.0))
    monkeypatch.setattr(machine, "cache_size", lambda: 1)
    out = run_cli("bench", tiny("gpt2"), *SMALL, "--backend", backend, "--device", device)[1]
    assert re.search(r"^tg4 .* %!$", out, re.MULTILINE)
    assert "! Above the measured limit" in out
    assert "* " not in out
    if device == "cpu":
        monkeypatch.setattr(Here, "limits", lambda self: (1e3, 1e30))
        monkeypatch.setattr(machine, "cache_size", lambda: 2**30)
        out = run_cli("bench", tiny("gpt2"), *SMALL, "--backend", backend, "--device", device)[1]
        assert re.search(r"^tg4 .* %\*$", out, re.MULTILINE)
        assert "* The weights fit into the largest cache (1.0 GiB)" in out


def test_shapes_and_the_shipped_model(
    run_cli: Run, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Subject] = []

    def measure(subjects: list[Subject], *rest: Any) -> None:
        seen.extend(subjects)
        raise UsageError("enough")

    monkeypatch.setattr(run, "measure", measure)
    for words in ([], ["--shape", "gpt2,llama-1b", "--shape", "gpt2", "--dtype", "float16"]):
        assert run_cli("bench", *words, *SMALL, "--backend", backend) == (
            2,
            "",
            "minigen: enough\n",
        )
    assert [(s.model, s.folder is None, s.dtype) for s in seen] == [
        ("stories-3m", False, None),
        ("gpt2 shape", True, "float16"),
        ("llama-1b shape", True, "float16"),
    ]


def test_a_busy_machine(
    run_cli: Run, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(machine, "load", lambda: 1.5)
    code, out, err = run_cli("bench", tiny("gpt2"), *SMALL, "--backend", backend, "-o", "json")
    assert (code, out.count("\n")) == (0, 1)
    assert (
        err
        == "minigen: warning: the load average is 1.50 on 2 cores before the start: the machine is busy\n"
    )


def test_train(
    run_cli: Run, tiny: Tiny, backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SECONDS", 0.01)
    monkeypatch.setattr(
        TrainingSession, "ask", lambda self, what, *args: getattr(self, what)(*args), raising=False
    )
    monkeypatch.setattr(TrainingSession, "close", lambda self: None, raising=False)
    monkeypatch.setattr(TrainingSession, "limits", lambda self: (1e10, 1e11))
    monkeypatch.setattr(run, "Worker", lambda subject: subject.session())
    where = ("--train", "-r", "2", "--backend", backend, "--device", device)
    code, out, err = run_cli("bench", tiny("gpt2"), *where, "-b", "2,4", "-p", "8", "-o", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)["results"]
    assert [row["test"] for row in found] == ["train b2x8", "train b4x8"]
    assert all(
        row["p50_ms"] > 0 and row["share"] > 0 and row["limit_by"] == "compute" for row in found
    )
    out = run_cli("bench", tiny("gpt2"), *where)[1]
    assert re.search(r"^train b8x64 ", out, re.MULTILINE)  # no more than the context of 64
    out = run_cli("bench", "--recipe", "shakespeare_char", *where, "-b", "1")[1]
    assert "shakespeare_char recipe" in out
    assert re.search(r"^train b1x64 ", out, re.MULTILINE)


BAD: dict[str, tuple[list[str], int, str]] = {
    "word": (
        ["-p", "5x"],
        2,
        r"argument -p/--n-prompt: '5x' is not a list of whole numbers such as 128,512 .*",
    ),
    "negative": (["-d", "-1"], 2, r"argument -d/--n-depth: .*"),
    "no rows": (["-b", "1,0"], 2, r"argument -b/--batch-size: '1,0': must be 1 or more .*"),
    "no runs": (["-r", "0"], 2, r"argument -r/--repetitions: '0': must be 1 or more .*"),
    "two runs": (["-r", "1,2"], 2, r"-r takes one number, for all tests"),
    "nothing": (
        ["-p", "0", "-n", "0"],
        2,
        r"there is nothing to measure: give a length > 0 to -p or -n",
    ),
    "shape": (
        ["--shape", "gpt5"],
        2,
        r"argument --shape: unknown 'gpt5': choose from gpt2, gpt2-xl, .*",
    ),
    "backend": (
        ["--backend", "torch,jax"],
        2,
        r"argument --backend: unknown 'jax': choose from auto, torch, mlx .*",
    ),
    "dtype": (
        ["--dtype", "int8"],
        2,
        r"argument --dtype: unknown 'int8': choose from float32, bfloat16, float16 .*",
    ),
    "output": (["-o", "xml"], 2, r"argument -o/--output: invalid choice: 'xml' .*"),
    "long": (
        ["-p", "65"],
        1,
        r"pp65 needs 65 tokens, but the context of MODEL is 64: lower -p, -n or -d",
    ),
    "deep": (
        ["-p", "8", "-n", "8", "-d", "0,57"],
        1,
        r"pp8 @ d57 needs 65 tokens, but the context of MODEL is 64: .*",
    ),
    "cold shape": (
        ["--cold", "--shape", "gpt2"],
        2,
        r"gpt2 shape has no files: --cold needs a model",
    ),
    "cold plot": (
        ["--cold", "--plot", "f.png"],
        2,
        r"--plot does not go with --cold: drop one of them",
    ),
    "train -n": (
        ["--train", "-n", "8"],
        2,
        r"-n does not go with --train, which takes only rows .*: drop one of them",
    ),
    "train -p": (["--train", "-p", "0"], 2, r"-p is 0: a row of training has at least 1 token"),
    "train -p long": (
        ["--train", "-p", "65"],
        1,
        r"train b8x65 needs 65 tokens, but the context of MODEL is 64: .*",
    ),
    "recipe": (["--recipe", "baby"], 2, r"--recipe names what to train: add --train"),
    "recipe model": (
        ["--train", "--recipe", "baby"],
        2,
        r"--recipe has a model of its own: drop .*",
    ),
    "compare": (
        ["--compare", "nowhere.json", "b"],
        1,
        r"cannot read nowhere\.json: No such file or directory",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(run_cli: Run, tiny: Tiny, backend: str, what: str) -> None:
    words, wanted, message = BAD[what]
    code, out, err = run_cli(
        "bench", tiny("gpt2"), *words, *(() if "--backend" in words else ("--backend", backend))
    )
    assert (code, out) == (wanted, "")
    pattern = message.replace("MODEL", re.escape(str(tiny("gpt2"))))
    assert re.fullmatch(rf"minigen( bench)?: {pattern}\n", err)


def test_compare(run_cli: Run, tmp_path: Path) -> None:
    names = {"model": "m", "backend": "torch", "dtype": "float32"}
    speeds = {
        "a": {"pp8": [10.0, 10.1, 9.9], "tg4": [5.0, 5.1]},
        "b": {"pp8": [12.0, 12.1, 11.9], "tg4": [5.1, 5.0]},
    }
    files = []
    for name, tests in speeds.items():
        rows = [{**names, "test": test, "samples_tps": samples} for test, samples in tests.items()]
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(
            json.dumps({"machine": {"cpu": name, "versions": {}}, "results": rows})
        )
    code, out, err = run_cli("bench", "--compare", *files)
    assert (code, err) == (0, "")
    assert re.search(r"^pp8 +10\.00 +12\.00 +1\.200 +1\.\d+ - 1\.\d+  faster$", out, re.MULTILINE)
    assert re.search(r"^tg4 .* no difference shown$", out, re.MULTILINE)
    assert "cpu: a in A, b in B" in out
    code, out, _ = run_cli("bench", "--compare", *files, "-o", "json")
    found = json.loads(out)
    assert found["files"] == [str(file) for file in files]
    assert [row["verdict"] for row in found["results"]] == ["faster", "no difference shown"]
    assert found["results"][0]["ratio"] == pytest.approx(1.2, 1e-3)


def test_plot(run_cli: Run, tiny: Tiny, tmp_path: Path, backend: str) -> None:
    pytest.importorskip("matplotlib")
    words = ("bench", tiny("gpt2"), *SMALL, "--backend", backend)
    sizes = []
    for dtypes in ("float32", "float32,bfloat16"):
        code, _, err = run_cli(*words, "--dtype", dtypes, "--plot", tmp_path / "p.png")
        assert (code, err) == (0, "")
        data = (tmp_path / "p.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert b"Software" not in data
        sizes.append(struct.unpack(">II", data[16:24]))
    assert sizes[0][0] == sizes[1][0] == 1080
    assert sizes[0][1] < sizes[1][1]  # a bar more in each of two panels
    code, _, err = run_cli(*words, "--plot", tmp_path / "nowhere" / "p.png")
    assert (code, err) == (
        1,
        f"minigen: cannot write {tmp_path}/nowhere/p.png: there is no folder {tmp_path}/nowhere\n",
    )


# `minigen` on a machine whose limits are measured in a moment; its workers import this too.
QUICK = """
import sys
from minigen.cli.entry import main
from minigen.backends import machine

machine.SIZES, machine.ARRAY, machine.SECONDS = {False: 32}, {False: 2**20}, 0.01
machine.cache_size = lambda: None
if __name__ == "__main__":
    sys.exit(main())
"""


def test_in_processes_of_their_own(
    make_model: Callable[..., Path], tmp_path: Path, any_backend: str
) -> None:
    """The whole command with its workers, and its cold starts; on one backend, for the time that it takes."""
    model = make_model("llama", hidden_size=64, intermediate_size=128)
    (tmp_path / "quick.py").write_text(QUICK)

    def rows(*words: str) -> list[dict[str, Any]]:
        command = [*words, str(model), "--backend", any_backend, "-o", "json"]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["results"]
        return found

    found = rows(str(tmp_path / "quick.py"), "bench", "-p", "4", "-n", "2", "-r", "1")
    assert [row["test"] for row in found] == ["pp4", "tg2"]
    assert all(row["limit_tps"] > 0 and row["load_s"] > 0 for row in found)
    (cold,) = rows("-m", "minigen", "bench", "--cold", "-r", "1", "--quant", "8")
    assert cold["quant"] == "q8"
    assert cold["samples_s"] == [cold["median_s"]]
    assert cold["start_s"] + cold["load_s"] + cold["first_token_s"] == pytest.approx(
        cold["median_s"]
    )
    assert min(cold["start_s"], cold["load_s"], cold["first_token_s"]) > 0
