"""Other programs that follow a run: TensorBoard and Weights & Biases, each through its own package."""

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
        module = needed("tensorboard.summary", "tensorboard", "--tensorboard")
        self.writer: Any = module.Writer(str(run / "tensorboard"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.flush()
        self.writer.close()


class WeightsAndBiases:
    def __init__(self, run: Path, config: Config) -> None:
        module: Any = needed("wandb", "wandb", "--wandb")
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


def needed(module: str, package: str, flag: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MinigenError(
            f"{flag} needs {package}, which does not import ({error}): pip install {package}"
        ) from error


def trackers(run: Path, config: Config) -> list[Tracker]:
    """What the settings ask for. Raises MinigenError for a package that is not installed."""
    found: list[Tracker] = []
    if config.run.tensorboard:
        found.append(TensorBoard(run))
    if config.run.wandb:
        found.append(WeightsAndBiases(run, config))
    return found


def finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: x for name, x in values.items() if x is not None and math.isfinite(x)}
