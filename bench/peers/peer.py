"""What a peer must provide to be measured like minigen: a model, and a subject that names it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from minigen.backends import machine
from minigen.backends.memory import peak_rss, physical_memory
from minigen.backends.packages import installed
from minigen.benchmark.plan import Case
from minigen.benchmark.session import Session, Subject
from minigen.generation.rows import Row


class Peer:
    """A model of another library, with the calls of minigen's Runner.

    It is created and used in a process of its own. Frameworks are imported in `load` or later,
    never by the module, because the parent process does not need them.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # as pip calls them, the peer's own first
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    families: ClassVar[tuple[str, ...]] = ("gpt2", "llama", "qwen2")
    batches: ClassVar[bool] = True

    def __init__(self, subject: PeerSubject) -> None:
        self.subject, self.architecture = subject, subject.architecture()
        self.config = dict(subject.config)
        self.config.pop("torch_dtype", None)

    @classmethod
    def prepare(cls, subject: PeerSubject) -> None:
        """Create the files that it needs, before any process is started."""

    @classmethod
    def session(cls, subject: PeerSubject) -> PeerSession:
        return PeerSession(subject)

    def threads(self) -> int:
        return self.subject.threads

    def load(self) -> None:
        """Create the model with random weights."""
        raise NotImplementedError

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Any]:
        """Read prompts of one length as a batch.

        Returns the logits after each, and a state with room for `capacity` tokens.
        """
        raise NotImplementedError

    def decode(self, ids: Sequence[int], state: Any) -> Any:
        """Read one new token per row; returns the logits after it."""
        raise NotImplementedError

    def sync(self, logits: Any) -> None:
        """Wait until the logits are computed."""

    def best(self, logits: Any) -> list[int]:
        """The most likely token of each row."""
        raise NotImplementedError


@dataclass(frozen=True)
class PeerSubject(Subject):
    """`backend` is the peer's name, `cache` the folder of the files that it needs."""

    peer: type[Peer] = Peer
    threads: int = 1
    cache: Path = Path()

    def session(self) -> PeerSession:
        return self.peer.session(self)

    def takes(self, case: Case) -> bool:
        return case.batch == 1 or self.peer.batches

    def packages(self) -> Sequence[str]:
        return self.peer.packages


class PeerSession(Session):
    """minigen's tests, with its prompts and its clock, around another's model."""

    subject: PeerSubject

    def begin(self) -> dict[str, Any]:
        self.peer = self.subject.peer(self.subject)
        self.ops = self.runner = self.peer  # type: ignore[assignment]
        about = {"device": "cpu", "dtype": self.subject.dtype, "threads": self.peer.threads()}
        return about | {"gpu": None, "total_memory": physical_memory()}

    def load(self) -> None:
        self.peer.load()

    def wait(self) -> None:
        pass

    def choose(self, logits: Any, rows: list[Row]) -> None:
        for row, token in zip(rows, self.peer.best(logits), strict=True):
            row.add(token)

    def loop(self, logits: Any, state: Any, rows: list[Row]) -> Iterator[None]:
        while True:
            self.choose(logits, rows)
            yield
            logits = self.peer.decode([row.ids[-1] for row in rows], state)

    def memory(self) -> int:
        return peak_rss()

    def limits(self) -> tuple[float, float]:
        """As NumPy measures them; minigen's own processes measure them too, and the best counts."""
        values = machine.beyond_caches(False, physical_memory())
        bandwidth = machine.measure_numpy_bandwidth(values, self.subject.threads)
        return bandwidth, machine.measure_numpy_peak()


def missing(peer: type[Peer]) -> str | None:
    """Why a peer cannot be run here at all: what is not installed. None if it can."""
    for package in peer.packages:
        if installed(package) is None:
            return f"{package} is not installed: pip install {package}"
    return None


def refused(peer: type[Peer], family: str, dtype: str) -> str | None:
    """Why a peer cannot run a model of this family in this dtype. None if it can."""
    if family not in peer.families:
        return f"it has no {family} model"
    if dtype not in peer.dtypes:
        kind = "quantized" if dtype.endswith("bit") else dtype
        return f"it has no {kind} weights on a CPU of its own"
    return None
