"""Saves a trainer as a checkpoint of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minigen.checkpoints import adapters
from minigen.checkpoints.saving import to_tensors
from minigen.training import checkpoint
from minigen.training.position import Position
from minigen.training.setup import Setup
from minigen.training.trainer import Trainer


def checkpoint_of(setup: Setup, trainer: Trainer, folder: Path, position: Position) -> Path:
    """Saves a checkpoint of a trainer in a run's folder, and returns its folder.

    It has the averaged weights if the trainer averages them, and only the adapter with LoRA.
    """
    position = replace(position, config=setup.config.values(), **setup.identity())
    weights = trainer.weights(averaged=True)
    file_name = checkpoint.WEIGHTS
    metadata = None
    if setup.lora is None:
        tensors = to_tensors(setup.architecture, setup.family, weights)
    else:
        tensors = setup.lora.tensors(weights)
        file_name = adapters.WEIGHTS
        metadata = {adapters.BASE_KEY: setup.lora.fingerprint}
    return checkpoint.save(
        folder,
        position,
        setup.model_files(),
        tensors,
        setup.config.run.save_dtype,
        trainer.state(),
        file_name,
        metadata,
    )
