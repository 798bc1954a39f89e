"""What to check first on an NVIDIA GPU."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from .step import SHIPPED, NotHereError, Place, Step, load, same, weights_of

GENERATION = ("tests/generation/test_ahead.py", "tests/generation/test_generate.py")
TESTS = ("tests/backends", *GENERATION, "tests/chat/test_engine.py")
FEW_TESTS = ("tests/backends/test_torch_graphs.py", "tests/generation/test_ahead.py", "-k", "torch")


def needs_gpu(place: Place) -> None:
    if place.simulated:
        raise NotHereError("it needs a GPU")


def tests(place: Place) -> str:
    chosen = FEW_TESTS if place.simulated else TESTS
    return place.pytest(*chosen, MINIGEN_TEST_TORCH_DEVICE=place.device)


def graphs(place: Place) -> str:
    cpu = ("--backend", "torch", "--device", "cpu")
    return same(
        {
            "with graphs": place.text(*place.where),
            "without": place.text(*place.where, MINIGEN_GRAPHS="0"),
            "on the CPU": place.text(*cpu, MINIGEN_GRAPHS="0", MINIGEN_KERNELS="0"),
        }
    )


def memory_checker(place: Place) -> str:
    needs_gpu(place)
    checker = shutil.which("compute-sanitizer")
    if checker is None:
        raise NotHereError("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    words = ("generate", "-p", "Once", "-n", "300", "--temp", "0", "--ignore-eos", *place.where)
    output = place.run(
        [checker, "--tool", "memcheck", "--error-exitcode", "9", *place.program(), *words]
    )
    return output.strip().split("\n")[-1]


def open_stream(place: Place) -> str:
    model = load(place)
    settings: dict[str, Any] = {
        "max_tokens": place.size(300, 24),
        "temperature": 0,
        "ignore_eos": True,
    }
    alone = "".join(model.stream("Once upon a time", **settings))
    pieces, others = [], place.size(30, 3)
    stream = model.stream("Once upon a time", **settings)
    for number in range(others):
        pieces.append(next(stream))
        model.generate(f"There were {number} trees" + " and trees" * number, **settings)
    pieces += stream
    return same({"alone": alone, f"between {others} others": "".join(pieces)})


def recurrent(place: Place) -> str:
    run = place.train("lstm", "--model", "lstm")
    written = place.minigen("generate", run, "-p", "The ", "-n", 40, "--temp", 0, *place.where)
    return f"an LSTM trained, and wrote {len(written)} characters"


def training(place: Place) -> str:
    runs = {
        "once": place.train("one"),
        "again": place.train("two"),
        "in two halves": place.train_halves("half"),
    }
    return same(weights_of(runs))


def quantized(place: Place) -> str:
    from minigen.backends.base import Quantized
    from minigen.tree import flatten

    tested = place.pytest(
        "tests/backends/test_quantized.py", "-k", "torch", MINIGEN_TEST_TORCH_DEVICE=place.device
    )
    codes: dict[str, object] = {}
    for name, device in (("made there", place.device), ("made on the CPU", "cpu")):
        model = load(place, device, quant="4")
        arrays = []
        for weight in flatten(model.runner.params).values():
            if isinstance(weight, Quantized):
                arrays.append(weight[0].cpu().numpy().tobytes())
        codes[name] = arrays
    assert codes["made there"], "no array of codes was found"
    return f"codes {same(codes)}; {tested}"


def attention(place: Place) -> str:
    needs_gpu(place)
    import torch

    model = load(place)
    lengths = range(10, 400, 13)
    settings: dict[str, Any] = {"max_tokens": 2, "temperature": 0, "ignore_eos": True}
    texts: dict[str, object] = {}
    seconds = []
    for name, on in (("without cuDNN", False), ("with it", True)):
        torch.backends.cuda.enable_cudnn_sdp(on)
        start = time.perf_counter()
        written = []
        for length in lengths:
            prompt = list(range(5, 5 + length))
            written.append(model.generate_ids([prompt], **settings))
        texts[name] = written
        seconds.append(f"{time.perf_counter() - start:.1f} s {name}")
    return f"{same(texts)}; {', '.join(seconds)}, for {len(lengths)} lengths"


def speed(place: Place) -> str:
    if place.simulated:
        return place.bench(SHIPPED, "-n", 4, "-r", 1)
    return place.bench(
        "--shape", "llama-1b", "--quant", "none,8,4", "-n", 64, "-d", "0,8192", "-r", 3
    )


def against_transformers(place: Place) -> str:
    needs_gpu(place)
    words = ("--shapes", "gpt2", "--tokens", "256", "--rounds", "2")
    table = place.run([sys.executable, "bench/gpu.py", *words]).strip().split("\n")
    lines = []
    for line in table:
        if "| minigen |" in line:
            lines.append(line.strip("| "))
    return "; ".join(lines)


def two_processes(place: Place) -> str:
    return place.pytest("tests/training/test_distributed.py", "-k", "torch and two_processes")


STEPS = (
    Step("tests of the backend, and of what runs ahead", tests, 200),
    Step("a text with graphs, without, on the CPU", graphs),
    Step("memcheck over 300 tokens", memory_checker, 120),
    Step("a stream kept open while others are generated", open_stream),
    Step("an LSTM", recurrent),
    Step("training twice, and in two halves", training, 150),
    Step("codes of 4 bits, on both devices", quantized),
    Step("SDPA by cuDNN, on and off", attention, 90),
    Step("tokens per second in bfloat16, 8 and 4 bits", speed, 150),
    Step("bench/gpu.py, gpt2", against_transformers, 120),
    Step("two processes, one killed", two_processes, 90),
)
