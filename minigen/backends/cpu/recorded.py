"""Arrays of a pass that is recorded: NumPy's, over memory that the program keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minigen.backends.cpu.cache import UnrecordableError

if TYPE_CHECKING:
    from minigen.backends.cpu.recorder import Recorder


class Recorded(np.ndarray[Any, Any]):
    """Numbers that will be there when the program has run so far."""

    recorder: Recorder

    def __array_finalize__(self, other: Any) -> None:
        self.recorder = getattr(other, "recorder", None)  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return self.recorder.arithmetic(ufunc, method, inputs, kwargs)

    def reshape(self, *shape: Any, **_: Any) -> Any:
        return same_memory(self, np.ndarray.reshape(self, *shape))


def address_of(x: npt.NDArray[Any]) -> int:
    return int(x.__array_interface__["data"][0])


def same_memory(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`y`. Raises UnrecordableError where NumPy had to copy to reshape: the numbers are not there yet."""
    if address_of(x) != address_of(y):
        raise UnrecordableError("a reshape that moves numbers")
    return y


def check(fits: bool, what: str) -> None:
    """Kernels take addresses, and trust the sizes that they are given. Raises UnrecordableError for others."""
    if not fits:
        raise UnrecordableError(f"{what} of shapes that no kernel takes")


@dataclass(frozen=True)
class Ids:
    """Stands for the token ids (B, T)."""

    shape: tuple[int, int]
