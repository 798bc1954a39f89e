"""What is measured: minigen on its backends and each peer, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minigen.benchmark.plan import Case, shape_of
from minigen.benchmark.session import Subject
from minigen.models.costs import parameters

from .hugging_face import Transformers
from .llama_cpp_library import LlamaCpp
from .mlx_lm_model import MLXLM
from .peer import Peer, PeerSubject, missing, refused
from .plain_gpt import PlainGPT

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Transformers, PlainGPT, MLXLM, LlamaCpp)
}
BACKENDS = ("torch", "mlx")  # minigen's
OWN = {"mlx-lm": "mlx"}  # the backend that a peer is compared with; the others with torch
SHAPES = ("gpt2", "smollm2-135m", "qwen2.5-0.5b")
DTYPES = ("float32", "bfloat16", "8-bit", "4-bit")
QUANTIZED = {"8-bit": "8", "4-bit": "4"}  # and what minigen calls them
TESTS = {"pp": Case("pp", 512), "tg": Case("tg", 128, 128), "batch": Case("tg", 64, 128, 16)}
QUICK = {"pp": Case("pp", 32), "tg": Case("tg", 8, 16), "batch": Case("tg", 4, 16, 4)}
# MLX multiplies with one thread on a CPU and, without Apple's library, at a hundredth of the speed
# of the others.
SLOW_TESTS = {"pp": Case("pp", 32), "tg": Case("tg", 8, 8)}
SLOW_PARAMETERS = 200e6  # larger models would take most of the run


@dataclass(frozen=True)
class Group:
    """Who takes turns, and at what."""

    backends: list[str]
    peers: list[str]
    tests: Mapping[str, Case]


def groups(
    backends: Sequence[str], peers: Sequence[str], quick: bool, slow_mlx: bool
) -> list[Group]:
    """All together; if MLX is slow, those that use it by themselves, with short tests."""
    tests = QUICK if quick else TESTS
    if not slow_mlx:
        return [Group(list(backends), list(peers), tests)]
    others = Group([], [], tests)
    slow = Group([], [], SLOW_TESTS)
    for name in backends:
        group = slow if name == "mlx" else others
        group.backends.append(name)
    for name in peers:
        group = slow if OWN.get(name) == "mlx" else others
        group.peers.append(name)
    return [group for group in (others, slow) if group.backends or group.peers]


@dataclass(frozen=True)
class Skipped:
    """A model that has no figures; without `model` and `dtype` that holds for all."""

    backend: str
    reason: str
    model: str | None = None
    dtype: str | None = None

    @property
    def subject(self) -> str:
        """The model and dtype in words."""
        return " ".join(filter(None, (self.model, self.dtype)))


def minigen_subject(shape: str, backend: str, dtype: str) -> Subject:
    """minigen's own subject.

    With torch, quantized weights have 16-bit scales and cache; MLX on a CPU is faster with 32 bits.
    """
    if dtype not in QUANTIZED:
        return Subject(**shape_of(shape), backend=backend, dtype=dtype)
    computed = "bfloat16" if backend == "torch" else "float32"
    return Subject(**shape_of(shape), backend=backend, dtype=computed, quant=QUANTIZED[dtype])


def available(names: Sequence[str]) -> tuple[list[str], list[Skipped]]:
    """Which of these peers are installed, and why the others are left out."""
    installed = []
    skipped = []
    for name in names:
        reason = missing(PEERS[name])
        if reason is None:
            installed.append(name)
        else:
            skipped.append(Skipped(name, reason))
    return installed, skipped


def subjects_of(
    shape: str, dtype: str, group: Group, threads: int, cache: Path
) -> tuple[list[Subject], list[Skipped]]:
    """Those of a group that are measured, minigen first, and those that are not."""
    fields, subjects, skipped = shape_of(shape), list[Subject](), list[Skipped]()
    if group.tests is SLOW_TESTS:
        size = parameters(Subject(**fields, backend="mlx").architecture())
        if size > SLOW_PARAMETERS:
            reason = (
                f"MLX on this CPU takes minutes for a test of {size / 1e6:.0f} million parameters"
            )
            names = [*(f"minigen {name}" for name in group.backends), *group.peers]
            return [], [Skipped(name, reason, fields["model"], dtype) for name in names]
    for backend in group.backends:
        subjects.append(minigen_subject(shape, backend, dtype))
    for name in group.peers:
        reason = refused(PEERS[name], fields["config"]["model_type"], dtype)
        if reason is None:
            own = {"peer": PEERS[name], "threads": threads, "cache": cache}
            subjects.append(PeerSubject(**fields, backend=name, dtype=dtype, **own))
        else:
            skipped.append(Skipped(name, reason, fields["model"], dtype))
    return subjects, skipped
