"""Fixtures that every test may use: the backends, the data beside the repository, and tiny checkpoints made here."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minigen.backends import BACKENDS, Backend, get_backend
from minigen.backends.cores import usable_cores
from minigen.checkpoints.plan import plan
from minigen.families import HubConfig, find_family

os.environ.setdefault(
    "HF_HUB_OFFLINE", "1"
)  # nothing here may reach for a real hub; its own tests lift it
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# MLX computes on the CPU unless its GPU is asked for. What names no device takes the same one:
# commands, and models that are loaded here or in processes of their own.
os.environ["MINIGEN_MLX_DEVICE"] = os.environ.get("MINIGEN_TEST_MLX_DEVICE", "cpu")
os.environ.setdefault("MINIGEN_KERNELS", "1")  # all of them, also where prompts are left to torch
# Tests run beside each other, a process for each core: the numbers of one are computed by one thread, and so are those
# of the processes that it starts. Also the library of MLX's and NumPy's products reads this, where it is loaded later.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if find_spec("torch"):
    import torch

    torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
# Half of the suite on a GPU: MINIGEN_TEST_TORCH_DEVICE=cuda or MINIGEN_TEST_MLX_DEVICE=gpu
DEVICES = {
    "torch": os.environ.get("MINIGEN_TEST_TORCH_DEVICE", "cpu"),
    "mlx": os.environ["MINIGEN_MLX_DEVICE"],
}

TINY_LLAMA = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "tokenizer": "bytes",
}
TINY_GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 256,
    "n_embd": 32,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 64,
    "tokenizer": "bytes",
}
TINY_LSTM = {
    "model_type": "lstm_lm",
    "vocab_size": 256,
    "embedding_size": 16,
    "hidden_size": 24,
    "num_layers": 2,
    "tokenizer": "bytes",
}
TINY_LFM2 = {
    "model_type": "lfm2",
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "block_auto_adjust_ff_dim": False,
    "num_hidden_layers": 3,
    "layer_types": ["conv", "full_attention", "conv"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tokenizer": "bytes",
}
TINY = {"gpt2": TINY_GPT2, "llama": TINY_LLAMA, "lstm": TINY_LSTM, "lfm2": TINY_LFM2}


KERNELS = "torch with kernels"
GPU = "torch as on a GPU"
# What generates, scores and chats, with either architecture.
AS_ON_A_GPU = ("test_", "models/", "generation/", "evaluation/", "chat/", "sampling/")
NO_DECODING = (
    "models/test_state.py",
)  # calls architectures alone, which do not know how a backend decodes
# Long texts and real models, whose kinds the others have.
TOO_LONG = {
    "test_stories_greedy_text_and_logits",
    "test_the_model_that_ships",
    "test_a_story_model",
}
MOST_PROCESSES = 16  # each takes about 1 GiB, and some seconds to start


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` stands for."""
    return min(usable_cores(), MOST_PROCESSES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take `backend` run on each, and in modules that say WITH_KERNELS also with the kernels of a CPU, which
    real models have and those of the tests are too small for.

    In the files and folders of AS_ON_A_GPU they also run as on a GPU, see `played_gpu`: `pytest -m gpu` runs these.
    """
    if "backend" in metafunc.fixturenames:
        own = (
            "run_cli" not in metafunc.fixturenames
        )  # commands may run models in processes of their own
        kernels = [KERNELS] * (own and getattr(metafunc.module, "WITH_KERNELS", False))
        where = Path(str(metafunc.module.__file__)).relative_to(ROOT / "tests").as_posix()
        fits = own and metafunc.function.__name__ not in TOO_LONG
        as_on_a_gpu = (
            fits
            and DEVICES["torch"] == "cpu"
            and where.startswith(AS_ON_A_GPU)
            and where not in NO_DECODING
        )
        gpu = [pytest.param(GPU, marks=pytest.mark.gpu)] * as_on_a_gpu
        metafunc.parametrize("backend", [*BACKENDS, *kernels, *gpu], indirect=True)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Also where SIGINT is ignored, as in the background of a script: tests send it, to processes that they start too,
    and those inherit what is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend's name in turn."""
    if request.param == KERNELS:
        request.getfixturevalue("started_kernels")
        return "torch"
    if request.param == GPU:
        request.getfixturevalue("played_gpu")
        return "torch"
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """The kernels of a CPU are on disk, made by one of the processes that run tests, and the others wait for it."""
    pytest.importorskip("numba", reason="numba is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    from minigen.backends.cpu import compiling

    compiling.Compiler().wait()
    # Each function keeps the folder that numba was told of when it was defined: no test has told of another one yet.
    from minigen.backends.cpu import attention, linear, program, small  # noqa: F401


@pytest.fixture
def started_kernels(compiled_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that torch loads on a CPU has its kernels from the beginning, however small it is."""
    backend_module = pytest.importorskip(
        "minigen.backends.torch.backend", reason="torch is not installed"
    )

    class Started(backend_module.Kernels):  # type: ignore[misc, name-defined]
        def __init__(self, threads: int | None = None) -> None:
            super().__init__(threads)
            self.start()
            assert self.started

    monkeypatch.setattr(backend_module, "Kernels", Started)


@pytest.fixture(autouse=True, scope="session")
def one_device_of_mlx() -> Iterator[None]:
    """With MLX on the GPU, tests that say "cpu" get the GPU: a process has one device of MLX."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICES["mlx"] == "gpu" and find_spec("mlx"):
            from minigen.backends.mlx.backend import MLXBackend

            make = MLXBackend.__init__

            def make_on_gpu(self: MLXBackend, device: str | None = None) -> None:
                make(self, "gpu" if device == "cpu" else device)

            patch.setattr(MLXBackend, "__init__", make_on_gpu)
        yield


@pytest.fixture(scope="session")
def installed() -> list[str]:
    """The backends that are installed, for tests that compare them: with one there is nothing to compare."""
    return [name for name in BACKENDS if find_spec(name)]


@pytest.fixture(scope="session")
def any_backend(installed: list[str]) -> str:
    """One backend, where its numbers are not looked at: the one that starts sooner."""
    return "mlx" if "mlx" in installed else "torch"


@pytest.fixture
def played_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that torch loads decodes as on a GPU, but for the graphs: by static steps, which are not captured,
    and with the next step asked for before the last one's tokens are read. No kernels of a CPU take part."""
    backend_module = pytest.importorskip(
        "minigen.backends.torch.backend", reason="torch is not installed"
    )
    from minigen.backends.torch.graphs import StaticSteps

    make = backend_module.TorchBackend.__init__

    def begin(self: Any, device: str | None = None, threads: int | None = None) -> None:
        make(self, device, threads)
        self.kernels, self.asynchronous, self.static = None, True, StaticSteps(self)

    monkeypatch.setattr(backend_module.TorchBackend, "__init__", begin)


@pytest.fixture
def device(backend: str) -> str:
    return DEVICES[backend]


@pytest.fixture
def ops(backend: str, device: str) -> Backend:
    """Each backend in float32 in turn."""
    return get_backend(backend, device, "float32")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference models and texts beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ with reference data is not beside the repository")
    return SHARED


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """A model folder with random float32 weights, of a size that gives text no obvious pattern."""
    rng = np.random.default_rng(seed)
    family = find_family(config)
    entries = plan(family.build(HubConfig(config)), family, [family.prefix])
    spread = 1.0 if config["model_type"].endswith("_lm") else 0.3
    tensors: dict[str, Any] = {}
    for entry in entries:
        for piece in entry.pieces:
            mean = 1.0 if "norm" in entry.path and entry.path.endswith("weight") else 0.0
            tensors[piece.name] = (mean + spread * rng.standard_normal(piece.shape)).astype(
                np.float32
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny("gpt2" | "llama" | "lstm" | "lfm2"): a folder with a random model over bytes, made once."""
    root = tmp_path_factory.mktemp("tiny")
    return lambda name: (
        root / name if (root / name).is_dir() else write_checkpoint(root / name, TINY[name])
    )


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """make_model("llama", vocab_size=5, seed=3): a folder with a random model, its config changed as given."""

    def make(name: str, seed: int = 0, **changes: Any) -> Path:
        return write_checkpoint(
            tmp_path / f"{name}-{len(os.listdir(tmp_path))}", TINY[name] | changes, seed
        )

    return make


# What the mock model below has read: short answers with Markdown, emoji and other scripts in them.
TALK = """Hello! I am a small model, and I like rain.
Rain is **good** for the garden. The garden has three trees:

- an apple tree
- a plum tree

Well, the `rain` falls on the roof. 日本語 is fine 🙂 too.
I like the garden. The roof is old, and the rain is soft. Hello again!
"""
CHAT_TEMPLATE = """{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def write_bigram(folder: Path, template: str | None = None, context: int = 512) -> Path:
    """A mock chat model that is a real checkpoint: a bigram model of TALK in the Llama layout, whose one layer adds
    nothing. What it says depends on the last token, the seed and the position alone, and is the same on any backend.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TALK] * 3, trainer)
    V = tokenizer.get_vocab_size()
    counts = np.full((V, V), 1e-3)
    begin = [tokenizer.token_to_id("<|assistant|>"), *tokenizer.encode("Assistant:").ids[-1:]]
    for sentence in [
        f" {line}" if i % 2 else line for line in TALK.split("\n\n") for i in range(2)
    ]:
        ids = [*tokenizer.encode(sentence).ids, 0]
        for start in begin:
            counts[start, ids[0]] += 1
        for a, b in pairwise(ids):
            counts[a, b] += 1
    logits = np.log(counts / counts.sum(axis=1, keepdims=True))
    config = TINY["llama"] | {
        "vocab_size": V,
        "hidden_size": V,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "max_position_embeddings": context,
    }
    del config["tokenizer"]
    family = find_family(config)
    tensors = {
        piece.name: np.zeros(piece.shape, np.float32)
        for entry in plan(family.build(HubConfig(config)), family, [family.prefix])
        for piece in entry.pieces
    }
    tensors["model.embed_tokens.weight"] = np.eye(V, dtype=np.float32)
    tensors["model.norm.weight"] = np.full(
        V, 1 / np.sqrt(V), np.float32
    )  # undoes what the norm does to a one-hot
    tensors["lm_head.weight"] = logits.T.astype(np.float32).copy()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def make_bigram(tmp_path: Path) -> Callable[..., Path]:
    """make_bigram(): a mock model with a chat template; make_bigram(None): a base model, which has none."""

    def make(template: str | None = CHAT_TEMPLATE, context: int = 512) -> Path:
        return write_bigram(tmp_path / f"bigram-{len(os.listdir(tmp_path))}", template, context)

    return make


@pytest.fixture
def read_all() -> Callable[[int], bytes]:
    """read_all(fd): what was written to a terminal whose other end is closed; one read may return only a part of it."""

    def read(terminal: int) -> bytes:
        seen = b""
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # Linux says so at the end; macOS returns nothing
                return seen
            if not piece:
                return seen
            seen += piece

    return read


@pytest.fixture
def run_cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, str, str]]:
    """run_cli("generate", ...) -> (exit code, stdout, stderr) of the command in this process."""
    from importlib import import_module

    main = import_module("minigen.cli.main").main

    def run(*argv: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run


class KilledError(BaseException):
    """In place of a process that dies: nothing that the program does after it changes a file."""


class Killer:
    """Counts what changes files in a folder, and lets the process die before one such call."""

    EVENTS = frozenset(
        {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree"}
    )

    def __init__(self) -> None:
        self.folder, self.count, self.at = "", 0, 0
        sys.addaudithook(self.see)  # it stays for as long as Python runs

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        if (
            not self.folder
            or event not in self.EVENTS
            or (event == "open" and not self.writes(args))
        ):
            return
        names = [os.fsdecode(x) for x in args[:2] if isinstance(x, str | bytes | os.PathLike)]
        # `rmtree` names what it removes relative to an open folder.
        if any(name.startswith(self.folder) for name in names) or (
            event == "os.remove" and not os.path.isabs(names[0])
        ):
            self.count += 1
            if self.count >= self.at > 0:
                raise KilledError

    @staticmethod
    def writes(args: tuple[Any, ...]) -> bool:
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def __call__(self, folder: Path, at: int, work: Callable[[], object]) -> bool:
        """Whether `work` died, before change `at` in the folder; with 0 it lives, and `count` is how many there are."""
        self.folder, self.count, self.at = str(folder), 0, at
        try:
            work()
        except KilledError:
            return True
        finally:
            self.folder = ""
        return False


@pytest.fixture(scope="session")
def killed() -> Killer:
    """killed(folder, n, work): whether `work` died, before the n-th change of a file in the folder."""
    return Killer()
