"""What a peer must be for minigen's harness to measure it as it does minigen: a model, and a subject that names it."""

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
    """Another's model, with the calls of minigen's Runner. It is made and used in a process of its own.

    The frameworks are imported in `load` and after it, never by the module: the process that asks has none.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # as pip calls them; the first is what is missing where it is not installed
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    families: ClassVar[tuple[str, ...]] = ("gpt2", "llama", "qwen2")
    batches: ClassVar[bool] = True

    def __init__(self, subject: PeerSubject) -> None:
        self.subject, self.architecture = subject, subject.architecture()
        self.config = {name: value for name, value in subject.config.items() if name != "torch_dtype"}

    @classmethod
    def prepare(cls, subject: PeerSubject) -> None:
        """Makes the files that it needs, before any process is started."""

    @classmethod
    def session(cls, subject: PeerSubject) -> PeerSession:
        return PeerSession(subject)

    def threads(self) -> int:
        return self.subject.threads

    def load(self) -> None:
        """Makes the model, with random weights."""
        raise NotImplementedError

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Any]:
        """Reads prompts of one length as a batch: the logits after each, and a state with room for `capacity`."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int], state: Any) -> Any:
        """One new token a row: the logits after it."""
        raise NotImplementedError

    def sync(self, logits: Any) -> None:
        """Waits until the logits are there."""

    def best(self, logits: Any) -> list[int]:
        """The likeliest token of each row."""
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
        self.peer = self.ops = self.runner = self.subject.peer(self.subject)  # type: ignore[assignment]
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
        """As NumPy reaches them: minigen's processes measure the same with their frameworks, and the best counts."""
        values = machine.beyond_caches(False, physical_memory())
        return machine.measure_numpy_bandwidth(values, self.subject.threads), machine.measure_numpy_peak()


def missing(peer: type[Peer]) -> str | None:
    """Why a peer cannot be run here at all: what is not installed."""
    for package in peer.packages:
        if installed(package) is None:
            return f"{package} is not installed: pip install {package}"
    return None


def refused(peer: type[Peer], family: str, dtype: str) -> str | None:
    """Why it has no figure for a model of this family in this dtype."""
    if family not in peer.families:
        return f"it has no {family} model"
    if dtype not in peer.dtypes:
        quantised = dtype.endswith("bit")
        return f"it has no {'quantised' if quantised else dtype} weights on a CPU of its own"
    return None
