"""`minigen train` as it is typed: a text in, a model out; what it shows; and what it says of bad input."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import minigen
from minigen.backends import machine
from minigen.training.evaluate import Evaluation
from minigen.training.log import read_log
from minigen.training.reports import Report

Run = Callable[..., tuple[int, str, str]]
TEXT = "".join(f"The {animal} sat on the {place}; it was {i} o'clock.\n" for i in range(1, 13)
               for animal, place in (("cat", "mat"), ("dog", "log"), ("frog", "bog")))  # fmt: skip
SMALL = [
    "--tokenizer", "char", "--layers", "2", "--heads", "2", "--width", "16", "--context", "16", "--batch", "4",
    "--steps", "6", "--eval-every", "3", "--warmup", "2", "--lr", "1e-2", "--valid", "0.1", "--log-every", "2",
    "--sample-tokens", "8",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "measure_peak", lambda ops: 1e9)
    monkeypatch.setenv("MINIGEN_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "animals.txt"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("model", ["gpt", "llama", "lstm", "gru", "rnn"])
def test_from_text_to_text(
    run_cli: Run, text: Path, tmp_path: Path, backend: str, model: str
) -> None:
    out = tmp_path / "out"
    code, said, err = run_cli(
        "train", text, *SMALL, "--model", model, "--out", out, "--backend", backend
    )
    assert (code, err) == (0, "")
    lines = said.splitlines()
    assert re.fullmatch(rf"{out}: \w+, [\d,]+ parameters, vocabulary 3\d, context 16", lines[0])
    assert lines[1].startswith("data: ")
    assert "6 N" in lines[2]
    assert [line.split("  ")[0] for line in lines if re.match(r"step \d+/", line)] == [
        "step 1/6", "step 2/6", "step 4/6", "step 6/6",
    ]  # fmt: skip
    validated = r"step \d+  valid \d\.\d{4}  perplexity .* bits/byte  train"
    assert len([line for line in lines if re.match(validated, line)]) == 2
    done = (
        rf"done in \d+ s: {out} is a model \(the best, step-00000\d\); try minigen generate {out}"
    )
    assert re.fullmatch(done, lines[-1])
    assert {path.name for path in out.iterdir()} >= {
        "config.json", "model.safetensors", "vocab.json", "generation_config.json", "train.toml", "log.jsonl",
        "loss.png", "latest", "best", "step-000006",
    }  # fmt: skip
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    code, said, err = run_cli(
        "generate", out, "-p", "The ", "--max-tokens", "5", "--backend", backend
    )
    assert (code, err) == (0, "")
    assert len(said) > 3
    again = tmp_path / "again"
    code, _, err = run_cli("train", "--config", out / "train.toml", "--out", again)
    assert (code, err) == (0, "")
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


KILLED = """
import os, sys
from minigen.training.loop import Loop
from minigen.cli.main import main
whole = Loop.one_step
def one_step(self, step):
    if step == 5:
        os.kill(os.getpid(), 9)
    whole(self, step)
Loop.one_step = one_step
main(sys.argv[1:])
"""


def test_kill_and_resume(run_cli: Run, text: Path, tmp_path: Path, any_backend: str) -> None:
    """N steps are N/2, kill -9, resume: the same bytes, the same losses. In training/ each backend resumes so."""
    common = [
        "train",
        text,
        *SMALL,
        "--model",
        "gpt",
        "--dropout",
        "0.1",
        "--backend",
        any_backend,
        "--device",
        "cpu",
    ]
    assert run_cli(*common, "--out", tmp_path / "straight")[0] == 0
    command = [sys.executable, "-c", KILLED, *map(str, common), "--out", str(tmp_path / "killed")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    code, said, err = run_cli("train", "--resume", tmp_path / "killed", "--log-every", "2")
    assert (code, err) == (0, "")
    assert "continuing from step 3\n" in said
    one, other = tmp_path / "straight", tmp_path / "killed"
    for file in (
        "model.safetensors",
        "step-000006/model.safetensors",
        "step-000006/training/state.safetensors",
    ):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    logs = [read_log(run) for run in (one, other)]
    losses = [
        [(row["kind"], row["step"], row["loss"]) for row in rows if "loss" in row] for rows in logs
    ]
    assert losses[0] == losses[1]
    code, said, err = run_cli("train", "--resume", tmp_path / "killed")
    assert (code, err) == (0, "")  # nothing is left to do
    assert "step 6/6" not in said


def test_ctrl_c(run_cli: Run, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = import_module("minigen.training.loop")
    whole = loop.Loop.one_step

    def one_step(self: Any, step: int) -> None:
        whole(self, step)
        if step == 3:
            os.kill(os.getpid(), 2)

    monkeypatch.setattr(loop.Loop, "one_step", one_step)
    out = tmp_path / "out"
    code, said, err = run_cli("train", text, *SMALL, "--out", out)
    assert (code, err) == (130, "")
    assert said.splitlines()[-2:] == [
        "stopping after this step; press Ctrl-C again to stop at once without saving",
        f"stopped and saved after step 4: continue with minigen train --resume {out}",
    ]
    assert minigen.load(out).logits([[1, 2]]).shape[:2] == (1, 2)


def test_a_teacher(
    run_cli: Run,
    text: Path,
    tmp_path: Path,
    backend: str,
    tiny: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_cli("train", text, *SMALL, "--out", tmp_path / "big", "--backend", backend)[0] == 0
    common = ["train", *SMALL[2:], "--backend", backend]
    monkeypatch.chdir(tmp_path)
    code, said, err = run_cli(
        *common, text, "--teacher", "big", "--teacher-temperature", "2", "--out", "like"
    )
    assert (code, err) == (0, "")
    wanted = f"teacher: {tmp_path / 'big'}: its probabilities (weight 0.5, temperature 2)"
    assert said.splitlines()[3] == wanted
    master = tiny("llama")
    words = [
        "--teacher",
        master,
        "--teacher-tokens",
        "150",
        "--tokenizer",
        "bpe:257",
        "--valid-data",
        text,
    ]
    code, said, err = run_cli(*common, *words)
    assert (code, err) == (0, "")
    assert (
        said.splitlines()[3]
        == f"teacher: {master}: the text that it wrote, because its tokenizer is different"
    )
    assert (tmp_path / "llama-llama/teacher.txt").is_file()
    code, said, err = run_cli("train", "--resume", "llama-llama")
    assert (code, err) == (0, "")
    code, said, _ = run_cli(
        *common, text, "--teacher", "big", "--teacher-weight", "0", "--out", "none"
    )
    assert said.splitlines()[3] == f"teacher: {tmp_path / 'big'}: nothing, because its weight is 0"


def test_plot(run_cli: Run, text: Path, tmp_path: Path) -> None:
    run_cli("train", text, *SMALL, "--out", tmp_path / "out")
    before = (tmp_path / "out/loss.png").read_bytes()
    (tmp_path / "out/loss.png").unlink()
    assert run_cli("train", "--plot", tmp_path / "out") == (0, f"{tmp_path / 'out/loss.png'}\n", "")
    assert (tmp_path / "out/loss.png").read_bytes() == before
    (tmp_path / "out/log.jsonl").write_text('{"kind": "begin", "step": 0}\n')
    code, _, err = run_cli("train", "--plot", tmp_path / "out")
    assert (code, err) == (
        2,
        f"minigen: there is nothing to plot in {tmp_path / 'out'}: its log has no loss yet\n",
    )


def test_doctor(run_cli: Run, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = import_module("minigen.training.doctor")
    monkeypatch.setattr(doctor, "FIT_SHARE", 0.9)
    monkeypatch.chdir(tmp_path)
    code, said, err = run_cli("train", text, *SMALL, "--doctor")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in said.splitlines()] == ["check", *["ok"] * 8]
    monkeypatch.setattr(doctor, "FIT_SHARE", -1.0)
    monkeypatch.setattr(doctor, "FIT_STEPS", 2)
    code, said, _ = run_cli("train", text, *SMALL, "--doctor")
    assert code == 1
    assert said.splitlines()[-1].startswith("FAILED  overfits one batch  ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["animals.txt", "cache"]


# -- what it shows ----------------------------------------------------------------------------------------------------
def report(**changes: Any) -> Report:
    values = {
        "step": 123, "steps": 2000, "tokens": 1_234_567, "epoch": 0.5, "loss": 1.5, "smoothed": 1.6, "lr": 1e-3,
        "grad_norm": 0.31, "tokens_per_s": 41_234.0, "mfu": 0.61, "eta": 3725.0,
    }  # fmt: skip
    return Report(**values | changes)


def test_the_live_line_fits_every_width() -> None:
    display = import_module("minigen.cli.display.train_display")
    assert display.line(report(), "", 150).plain == (
        "━"
        * 20
        + " 123/2000  loss 1.6000  this 1.5000  lr 1.00e-03  norm 0.31  epoch 0.50  tokens 1.23M  "
        "41.2k tok/s  MFU 61%  1:02:05 left"
    )
    for width in range(1, 160):
        for doing in ("", "validating 3/40"):
            assert display.line(report(), doing, width).cell_len <= width
    assert display.line(report(), "", 30).plain == "123/2000  loss 1.6000  MFU 61%"
    assert (
        display.line(report(), "validating 3/40", 40).plain
        == "123/2000  validating 3/40  loss 1.6000"
    )
    assert display.line(None, "", 5).plain == "the f"


def test_a_validation_in_few_columns() -> None:
    display = import_module("minigen.cli.display.train_display")
    found = Evaluation(
        250, 1.5, 2.25, 1.4, (1.75, 1.6, 1.5, 1.5, 1.5, 1.5, 1.5, 1.25), "", best=True
    )
    whole = "step 250  valid 1.5000  perplexity 4.482  2.2500 bits/byte  train 1.4000 (gap +0.1000)"
    assert display.evaluation_line(found) == f"{whole}  by position 1.75…1.25  best"
    assert display.evaluation_line(found, 100) == f"{whole}  best"
    assert display.evaluation_line(found, 45) == "step 250  valid 1.5000  best"
    assert display.evaluation_line(found, 10) == "step 250  valid 1.5000"


def test_a_validation_says_nothing_of_positions_that_no_target_has() -> None:
    """Where answers alone are learned, the questions before them have none."""
    display = import_module("minigen.cli.display.train_display")
    nan = math.nan
    found = Evaluation(
        250, 1.5, 2.25, 1.4, (nan, nan, 1.75, 1.5, nan, 1.25, nan, nan), "", best=False
    )
    assert display.evaluation_line(found).endswith("  by position 1.75…1.25")
    found = Evaluation(
        250, 1.5, 2.25, 1.4, (nan, nan, nan, 1.5, nan, nan, nan, nan), "", best=False
    )
    assert "position" not in display.evaluation_line(found)
    assert "nan" not in display.evaluation_line(found)


@pytest.mark.parametrize("columns", [28, 100])
def test_on_a_terminal(
    run_cli: Run, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_all: Callable[[int], bytes],
    columns: int,
) -> None:  # fmt: skip
    parent, child = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    with os.fdopen(child, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        main = import_module("minigen.cli.main").main
        assert main(["train", str(text), *SMALL, "--out", str(tmp_path / "out")]) == 0
        stream.flush()
        monkeypatch.undo()
    written = read_all(parent).decode()
    os.close(parent)
    assert "\x1b[" in written
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
    assert "valid" in plain
    assert "is a model" in plain
    assert "step 2/6" not in plain  # the reports are the live line
    assert plain.rstrip().splitlines()[-1] != ""


# -- bad input --------------------------------------------------------------------------------------------------------
BAD: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, r"no training data: name a file, a folder or a glob"),
    "missing": (["nowhere.txt"], 1, r"\S*nowhere\.txt: cannot be read: No such file or directory"),
    "empty": (["EMPTY"], 1, r"EMPTY: is empty: drop it, or fill it"),
    "one token": (["ONE"], 1, r"ONE: 1 characters are too few to divide at 0\.1: give more text"),
    "short": (
        ["SHORT"],
        1,
        r"SHORT: 14 tokens to train on are too few for a context of 16: lower the context .*",
    ),
    "binary": (
        ["BINARY"],
        1,
        r"BINARY: is not text: byte 0x00 at offset 3; drop it, or save it as UTF-8 .*",
    ),
    "no validation": (
        ["TEXT", "--valid", "0"],
        2,
        r"valid is 0(\.0)?: it must be a number > 0 and < 1",
    ),
    "vocabulary": (
        ["TEXT", "--vocab", "9"],
        2,
        r"the tokenizer has 3\d tokens and the model's vocabulary 9: raise .*",
    ),
    "tokenizer": (
        ["TEXT", "--tokenizer", "words"],
        2,
        r"tokenizer is 'words': choose char, bytes, bpe:N, gpt2, or .*",
    ),
    "bpe": (
        ["TEXT", "--tokenizer", "bpe"],
        2,
        r"tokenizer is 'bpe': write it as bpe:2048, with the size .*",
    ),
    "prompt": (
        ["TEXT", "--prompt", "The cat sat on the mat"],
        2,
        r"the prompt of the sample has 22 tokens and the .*",
    ),
    "spelling": (["TEXT", "--layer", "3"], 2, r"unrecognized arguments: --layer 3 .*"),
    "word": (["TEXT", "--layers", "x"], 2, r"argument --layers: invalid int value: 'x' .*"),
    "saving": (
        ["TEXT", "--save-every", "4"],
        2,
        r"save_every is 4: it must be a multiple of eval_every, 3",
    ),
    "number": (["TEXT", "--lr", "0"], 2, r"lr is 0(\.0)?: it must be a number > 0"),
    "shape": (
        ["TEXT", "--from", "x", "--width", "8"],
        2,
        r"--layers is given, but the model of --from has .*",
    ),
    "config": (
        ["TEXT", "--config", "no.toml"],
        2,
        r"cannot read no\.toml: No such file or directory",
    ),
    "teacher": (
        ["TEXT", "--teacher", "./none"],
        1,
        r"cannot load the teacher: no such folder: \./none",
    ),
    "no teacher": (
        ["TEXT", "--teacher-weight", "1"],
        2,
        r"--teacher-weight is given without a teacher: name one .*",
    ),
    "share": (
        ["TEXT", "--teacher", "x", "--teacher-weight", "2"],
        2,
        r"teacher_weight is .* a number from 0 to 1",
    ),
    "cold": (
        ["TEXT", "--teacher", "x", "--teacher-temperature", "0"],
        2,
        r"teacher_temperature is .* a number > 0",
    ),
    "to validate": (
        ["--teacher", "x", "--teacher-tokens", "9"],
        1,
        r"cannot load the teacher: no folder 'x' here, .*",
    ),
    "resume": (
        ["--resume", "FOLDER"],
        2,
        r"FOLDER is not a run: it has no train\.toml; begin one with --out FOLDER",
    ),
    "resume elsewhere": (
        ["--resume", "FOLDER", "--out", "x"],
        2,
        r"--resume continues with the settings of the run: drop --out",
    ),
    "plot": (
        ["--plot", "FOLDER"],
        2,
        r"cannot read FOLDER/log\.jsonl: No such file or directory: name the folder .*",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(run_cli: Run, text: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "one").write_text("x")
    (tmp_path / "short").write_text("The cat sat on t")
    (tmp_path / "binary").write_bytes(b"ABC\0\1\2" * 9)
    (tmp_path / "folder").mkdir()
    names = {
        name.upper(): str(tmp_path / name) for name in ("empty", "one", "short", "binary", "folder")
    }
    names |= {"TEXT": str(text)}
    words, wanted, message = BAD[what]
    own = [] if "--plot" in words or "--resume" in words else SMALL
    out = [] if own == [] else ["--out", str(tmp_path / "out")]
    code, said, err = run_cli("train", *own, *out, *(names.get(word, word) for word in words))
    for name, path in names.items():
        message = message.replace(name, re.escape(path))
    assert (code, said) == (wanted, "")
    assert re.fullmatch(rf"minigen: {message}\n", err)
    assert not (tmp_path / "out").exists()


def test_out_of_memory(
    run_cli: Run, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    module = import_module(f"minigen.backends.{backend}.training")
    kind = getattr(module, f"{'Torch' if backend == 'torch' else 'MLX'}Training")
    monkeypatch.setattr(
        kind, "add_gradients", lambda *_: (_ for _ in ()).throw(MemoryError("no more"))
    )
    code, _, err = run_cli("train", text, *SMALL, "--out", tmp_path / "out", "--backend", backend)
    assert (code, err) == (
        1, "minigen: out of memory in a training step: lower the batch size and accumulate over more batches, or lower "
        "the context; nothing was saved before\n",
    )  # fmt: skip


def test_a_folder_that_cannot_be_written(run_cli: Run, text: Path, tmp_path: Path) -> None:
    place = tmp_path / "locked"
    place.mkdir(mode=0o555)
    if os.access(place, os.W_OK):  # root may write anywhere
        shutil.rmtree(place)
        place = Path("/proc/self")
        if not place.is_dir():
            pytest.skip("there is no folder that root cannot write to")
    code, said, err = run_cli("train", text, *SMALL, "--out", place / "run")
    assert (code, said) == (1, "")
    assert re.fullmatch(rf"minigen: cannot make {place}/run: [\w ]+\n", err)


def test_another_run_is_there(
    run_cli: Run, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("train", "animals.txt", *SMALL, "--model", "rnn")[0] == 0
    config = (tmp_path / "animals-rnn/config.json").read_text()
    assert json.loads(config)["model_type"] == "rnn_lm"
    code, _, err = run_cli("train", "animals.txt", *SMALL, "--model", "rnn")
    assert (code, err) == (
        2, "minigen: animals-rnn has a run already: go on with --resume animals-rnn, or name another --out\n"
    )  # fmt: skip
    code, _, err = run_cli("train", "--resume", "animals-rnn", "--tokenizer", "bytes")
    assert code == 2
    assert err.startswith(
        "minigen: --tokenizer is 'bytes', but animals-rnn was begun with 'char': leave it as it was"
    )
