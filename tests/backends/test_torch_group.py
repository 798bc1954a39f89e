"""Processes with a GPU each, none of which is there: who takes which, and what is said where one is lost."""

from __future__ import annotations

import os
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from minigen.errors import MinigenError

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available():
    pytest.skip("torch is built without torch.distributed", allow_module_level=True)
from minigen.backends.torch import group as torch_group  # noqa: E402  (it needs torch)

SHARES = {
    "all see all": ([["a", "b"], ["a", "b"]], [0, 1]),
    "each is shown its own": ([["a"], ["b"]], [0, 0]),
    "two machines, with two each": ([["a", "b"], ["a", "b"], ["c", "d"], ["c", "d"]], [0, 1, 0, 1]),
    "in another order": ([["a", "b"], ["b", "a"]], [0, 0]),
    "more processes than GPUs": ([["a"], ["a"]], [0, None]),
    "none": ([[], []], [None, None]),
}


@pytest.mark.parametrize("case", SHARES)
def test_who_takes_which(case: str) -> None:
    seen, wanted = SHARES[case]
    assert torch_group.shared_out(seen) == wanted


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """torch's groups and GPUs, as far as they are asked: two processes, of which this is the second one."""
    found = SimpleNamespace(calls=[], others=["GPU-1"], own=["GPU-2"], environment={})

    def begin(*words: Any, **named: Any) -> None:
        found.calls.append(("begin", words[0]))
        found.environment = dict(os.environ)

    def gather(into: list[Any], own: Any, group: Any) -> None:
        found.calls.append(("gather", own))
        into[:] = [found.others, own]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found.own))
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: found.calls.append(("set", index)))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda index: SimpleNamespace(uuid=found.own[index], total_memory=1),
    )
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCH_NCCL_BLOCKING_WAIT")
    monkeypatch.setenv("LOCAL_RANK", "1")
    for name, stand_in in {
        "is_nccl_available": lambda: True,
        "init_process_group": begin,
        "get_rank": lambda: 1,
        "get_world_size": lambda: 2,
        "new_group": lambda **named: "control",
        "all_gather_object": gather,
    }.items():
        monkeypatch.setattr(torch_group.dist, name, stand_in)
    monkeypatch.setattr(torch_group.atexit, "register", lambda work: None)
    return found


def test_one_visible_gpu_each(machine: SimpleNamespace) -> None:
    """The second process of a machine, with one GPU: its own."""
    group = torch_group.TorchGroup()
    assert group.place(None) == group.place("cuda") == "cuda:0"
    assert machine.calls == [
        ("begin", "cpu:gloo,cuda:nccl"),
        ("gather", ["GPU-2"]),
        ("set", 0),
        ("set", 0),
    ]


def test_two_of_one_machine(machine: SimpleNamespace) -> None:
    machine.others = machine.own = ["GPU-1", "GPU-2"]
    assert torch_group.TorchGroup().place(None) == "cuda:1"


def test_gpus_without_names_are_those_of_their_machine(machine: SimpleNamespace) -> None:
    machine.own = [None, None]
    names = torch_group.visible_gpus()
    assert len(set(names)) == 2
    assert names == torch_group.visible_gpus()


def test_nccl_is_told_to_report_before_it_begins(machine: SimpleNamespace) -> None:
    torch_group.TorchGroup()
    assert machine.environment["TORCH_NCCL_BLOCKING_WAIT"] == "1"


class Work:
    """A sum that NCCL has begun: it is done after some looks at it, well or not, or never."""

    def __init__(self, looks: float, error: str = "") -> None:
        self.looks, self.error, self.waited = looks, error, 0

    def is_completed(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def wait(self, timeout: timedelta) -> None:
        assert timeout <= timedelta(seconds=10)
        self.waited += 1
        if self.error:
            raise torch.distributed.DistBackendError(self.error)


class OnGPU:
    is_cuda = True


def summed(monkeypatch: pytest.MonkeyPatch, work: Work, met: Exception | None = None) -> list[str]:
    """What was asked of the two, by kind, in a sum of gradients that `work` is."""
    asked: list[str] = []

    def reduce(x: Any, async_op: bool = False) -> Any:
        asked.append("nccl" if isinstance(x, OnGPU) else "gloo")
        if not isinstance(x, OnGPU) and met is not None:
            raise met
        return work if async_op else None

    monkeypatch.setattr(torch_group.dist, "all_reduce", reduce)
    group = torch_group.TorchGroup.__new__(torch_group.TorchGroup)
    group.rank, group.size = 0, 2
    try:
        group.sum(OnGPU())
    finally:
        assert work.waited == ("nccl" in asked)
    return asked


def test_a_sum_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert summed(monkeypatch, Work(looks=3)) == ["gloo", "nccl"]


def test_a_process_that_has_ended_is_found_before_nccl_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work(looks=0)
    with pytest.raises(
        MinigenError,
        match=r"^process 0 of 2 lost the connection to another one \(Connection closed by peer \[1",
    ):
        summed(
            monkeypatch, work, RuntimeError("[a/pair.cc:12] Connection closed by peer [1.2.3.4]:5")
        )
    assert work.waited == 0


def test_a_fault_of_nccl_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "NCCL error in: /a/b.cpp:94, remote process exited or there was a network error, NCCL version 2.27\nlong"
    with pytest.raises(
        MinigenError,
        match=r"^process 0 of 2 lost the connection to another one \(NCCL: remote process exited or",
    ):
        summed(monkeypatch, Work(looks=2, error=said))


def test_a_sum_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_group, "GRADIENTS", 0.01)
    with pytest.raises(
        MinigenError,
        match=r"^process 0 of 2 lost the connection to another one \(it took too long\)",
    ):
        summed(monkeypatch, Work(looks=float("inf"), error="it took too long"))
