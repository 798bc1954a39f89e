"""Sends a run's numbers to TensorBoard or Weights & Biases, each through its own package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from minigen.errors import MinigenError
from minigen.training.config import Config


class Tracker(Protocol):
    def add(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    def __init__(self, run: Path) -> None:
        module = import_package("tensorboard.summary", "tensorboard", "--tensorboard")
        self.writer: Any = module.Writer(str(run / "tensorboard"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.flush()
        self.writer.close()


class WeightsAndBiases:
    def __init__(self, run: Path, config: Config) -> None:
        module: Any = import_package("wandb", "wandb", "--wandb")
        self.run: Any = module.init(
            project=config.run.wandb,
            name=run.name,
            dir=str(run),
            config=config.values(),
            resume="allow",
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


def import_package(module: str, package: str, flag: str) -> Any:
    """A module of a package that a flag needs. Raises MinigenError if it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MinigenError(
            f"{flag} needs {package}, which cannot be imported ({error}): pip install {package}"
        ) from error


def trackers(run: Path, config: Config) -> list[Tracker]:
    """The trackers of the settings. Raises MinigenError for a package that is not installed."""
    result: list[Tracker] = []
    if config.run.tensorboard:
        result.append(TensorBoard(run))
    if config.run.wandb:
        result.append(WeightsAndBiases(run, config))
    return result


def finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values that are finite numbers."""
    return {name: x for name, x in values.items() if x is not None and math.isfinite(x)}
