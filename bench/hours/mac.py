"""What to check first on a Mac with Apple silicon."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

from .step import ROOT, SHIPPED, NotHereError, Place, Step, load, same, weights_of

TESTS = (
    "tests/generation/test_generate.py",
    "tests/generation/test_prompt_cache.py",
    "tests/cli/test_score.py",
    "tests/backends/test_ops.py",
)
BY_HAND = "Option-Enter, Esc Enter, a paste, Ctrl-C, a resize"
FEW_TESTS = ("tests/generation/test_prompt_cache.py", "tests/backends/test_choice.py")


def story(place: Place) -> str:
    written = place.minigen("generate", "-p", "Once upon a time", "-n", 60)
    return f"a story of {len(written)} characters"


def chosen_tests(place: Place) -> tuple[str, ...]:
    return FEW_TESTS if place.simulated else TESTS


def tests_on_the_cpu(place: Place) -> str:
    return place.pytest(*chosen_tests(place), "-k", "mlx")


def tests_on_the_gpu(place: Place) -> str:
    return place.pytest(*chosen_tests(place), "-k", "mlx", MINIGEN_TEST_MLX_DEVICE="gpu")


def texts(place: Place) -> str:
    return same(
        {
            "MLX on the GPU": place.text("--backend", "mlx", "--device", "gpu"),
            "MLX on the CPU": place.text("--backend", "mlx", "--device", "cpu"),
            "torch": place.text("--backend", "torch", "--device", "cpu"),
        }
    )


def precision(place: Place) -> str:
    plain = place.text(*place.where, MLX_ENABLE_TF32="0")
    guessed = place.text(*place.where, "--speculate", "lookup")
    shortened = place.text(*place.where, "--speculate", "lookup", MLX_ENABLE_TF32="1")
    report = same({"plain": plain, "speculative": guessed})
    if shortened == plain:
        return f"{report}; the same with MLX_ENABLE_TF32=1"
    return f"{report}; different with MLX_ENABLE_TF32=1"


def kernels(place: Place) -> str:
    tested = place.pytest(
        "tests/backends/test_cpu_kernels.py", "tests/test_fake_platform.py", "-k", "not metal"
    )
    names = []
    for line in place.run([sys.executable, "-m", "numba", "-s"]).split("\n"):
        if "Available" in line and line.endswith("True"):
            names.append(line.split(" Threading")[0].strip())
    return f"{tested}; numba has {', '.join(names[-3:])}"


def speed(place: Place) -> str:
    if place.simulated:
        return place.bench(SHIPPED, "-n", 4, "-r", 1)
    return place.bench(
        "--shape", "llama-1b", "-n", 32, "-d", "0,2048,8192", "--kv-bits", "none,8", "-r", 2
    )


def equal_prompts(place: Place) -> str:
    model = load(place)
    prompt = [5 + i % 1000 for i in range(place.size(400, 100))]
    settings: dict[str, Any] = {
        "max_tokens": place.size(60, 12),
        "temperature": 0,
        "ignore_eos": True,
    }
    alone = model.generate_ids([prompt], **settings)[0]
    first, second = model.generate_ids([prompt, prompt], **settings)
    return same({"alone": alone, "first of two": first, "second of two": second})


def training(place: Place) -> str:
    runs = {"once": place.train("one"), "again": place.train("two")}
    return same(weights_of(runs))


def long_prompt(place: Place) -> str:
    """The model that ships, with a longer context than it was trained for: only memory matters."""
    model = place.folder / "long"
    shutil.copytree(SHIPPED, model, ignore=shutil.ignore_patterns("*.png"))
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] = 40000
    (model / "config.json").write_text(json.dumps(config))
    prompt = place.folder / "prompt.txt"
    prompt.write_text("Once upon a time there was a tree. " * place.size(3000, 40))
    words = ("generate", str(model), "-f", str(prompt), "-n", "20", "--ignore-eos", *place.where)
    place.minigen(*words)
    command = [*place.program(), *words, "--num-samples", "500"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    lines = done.stderr.strip().split("\n")
    assert done.returncode in (0, 1), (
        f"500 samples end the process with {done.returncode}: {lines[-1]}"
    )
    assert done.returncode == 0 or len(lines) == 1, (
        f"500 samples are refused in {len(lines)} lines: {lines[-1]}"
    )
    outcome = lines[-1] if done.returncode else "written"
    return f"a long prompt is read; 500 samples: {outcome}"


def recurrent(place: Place) -> str:
    run = place.train("lstm", "--model", "lstm")
    words = (
        "generate",
        run,
        "-p",
        "The ",
        "-n",
        40,
        "--temp",
        0,
        "--dtype",
        "float32",
        "--backend",
        "mlx",
    )
    texts: dict[str, object] = {}
    for device in ("gpu", "cpu"):
        texts[f"an LSTM on the {device}"] = place.minigen(*words, "--device", device)
    return same(texts)


def two_processes(place: Place) -> str:
    if place.simulated:  # the processes would ask for the real GPU
        return place.pytest(
            "tests/training/test_distributed.py",
            "-k",
            "mlx and two_processes",
            MINIGEN_TEST_MLX_DEVICE="cpu",
        )
    return place.pytest("tests/training/test_distributed.py", "-k", "mlx and two_processes")


def chat(place: Place) -> str:
    if shutil.which("tmux") is None:
        raise NotHereError(f"tmux is not installed; in Terminal.app: {BY_HAND}")
    tested = place.pytest(
        "tests/cli/test_chat_terminal.py", "-k", "pasting or ctrl_c or resize or flicker"
    )
    return f"in tmux: {tested}; by hand in Terminal.app: {BY_HAND}"


STEPS = (
    Step("a story from the model that ships", story),
    Step("tests, MLX on the CPU", tests_on_the_cpu, 90),
    Step("tests, MLX on the GPU", tests_on_the_gpu, 90),
    Step("a text from MLX on both devices, and from torch", texts),
    Step("float32 in full, and speculative decoding", precision),
    Step("kernels of torch's CPU, and numba's threads", kernels, 120),
    Step("tokens per second in bfloat16, and with kv-bits", speed, 150),
    Step("two equal long prompts, together and alone", equal_prompts),
    Step("training twice", training, 90),
    Step("a prompt of 30,000 tokens, then 500 samples", long_prompt, 120),
    Step("an LSTM, on both devices", recurrent, 90),
    Step("two processes, one killed", two_processes, 90),
    Step("the chat on a terminal", chat, 90),
)
