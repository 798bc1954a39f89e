"""From settings to everything a run needs: tokenizer, data, model and batches, all checked before a step is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.backends import get_backend
from minigen.backends.base import Backend, Tree
from minigen.backends.group import ALONE, Group, check_backend
from minigen.backends.training import SoftTargets
from minigen.checkpoints import adapters
from minigen.checkpoints.checkpoint import read_headers
from minigen.checkpoints.hub import resolve
from minigen.checkpoints.loading import load_params
from minigen.errors import UsageError
from minigen.families import Family, HubConfig, find_family
from minigen.families.new import new_config
from minigen.layers.param import as_arrays, initialise
from minigen.models.architecture import Architecture
from minigen.reading import at_home
from minigen.tokenizer import Tokenizer
from minigen.training.chat_formats import run_template
from minigen.training.config import Config
from minigen.training.data import Batches, Dataset, Validation, open_tokenizer
from minigen.training.data.identity import tokenizer_identity
from minigen.training.lora import Lora, make_lora
from minigen.training.model_files import (
    as_json,
    check_chat_tokens,
    end_ids,
    from_folder,
    model_config,
    text_files,
)
from minigen.training.run_data import (
    Progress,
    make_batches,
    make_validation,
    read_dataset,
    sample_prompt,
)
from minigen.training.teacher import WRITING, check_sources, open_teacher, resolve_teacher
from minigen.training.tokenizer_files import copy_tokenizer, make_tokenizer
from minigen.training.trainer import Optimizer, Trainer
from minigen.tree import flatten, unflatten

TOKENIZER = "tokenizer"  # the folder in RUN


@dataclass(frozen=True)
class Setup:
    """`config` is resolved: nothing in it depends on the machine or the folder it was given in."""

    config: Config
    ops: Backend
    hub: Mapping[str, Any]  # config.json
    family: Family
    architecture: Architecture
    tokenizer: Tokenizer
    tokenizer_folder: Path
    dataset: Dataset
    batches: Batches
    validation: Validation
    prompt: tuple[int, ...]  # of the sample
    stop_ids: tuple[int, ...]
    lora: Lora | None = None
    teacher: str = ""  # its fingerprint, where there is one
    soft: SoftTargets | None = None  # what is learned of its probabilities
    group: Group = ALONE  # this process and those that it trains with

    def identity(self) -> dict[str, Any]:
        tokenizer = tokenizer_identity(self.tokenizer, self.tokenizer_folder)
        return {"data": self.dataset.key, "tokenizer": tokenizer, "teacher": self.teacher}

    def initial(self) -> Tree:
        """The weights that a run begins with, in NumPy: drawn, or those of `--from`; of LoRA's, the adapter alone."""
        if self.lora is not None:
            return initialise(self.lora.shapes(), self.config.run.seed)
        if not self.config.model.from_model:
            return initialise(self.architecture.shapes(), self.config.run.seed)
        folder = Path(self.config.model.from_model)
        ops = get_backend(self.ops.name, self.ops.device, "float32")
        tree = load_params(ops, self.architecture, self.family, read_headers(folder), folder)
        return unflatten({path: ops.numpy(x).copy() for path, x in flatten(tree).items()})

    def params(self, weights: Tree) -> Tree:
        """The model's own parameters on the device, from weights as a trainer has them."""
        arrays = as_arrays(self.ops, weights)
        return arrays if self.lora is None else self.lora.merge(self.ops, arrays)

    def trainer(
        self, params: Tree | None = None, *, optimizer: Optimizer | None = None, **changes: Any
    ) -> Trainer:
        """At the beginning of the run, or with other weights, another optimizer or settings."""
        c = self.config
        settings: dict[str, Any] = {
            "dropout": c.model.dropout,
            "seed": c.run.seed,
            "compile": c.run.compile,
        }
        settings |= {
            "group": self.group,
            "teacher": self.soft,
            "deterministic": c.run.deterministic,
        }
        params = self.initial() if params is None else params
        return Trainer(
            self.ops,
            self.lora or self.architecture,
            params,
            optimizer or c.optimizer,
            **settings | changes,
        )

    def model_files(self) -> dict[str, bytes]:
        """The small files of a model folder by name."""
        files = text_files(self.config, self.tokenizer, self.tokenizer_folder, self.stop_ids)
        if self.lora is not None:
            return files | {adapters.CONFIG: as_json(self.lora.config())}
        return files | {"config.json": as_json(self.hub)}


def build(
    config: Config,
    folder: Path,
    progress: Progress = lambda what, done, total: None,
    group: Group = ALONE,
) -> Setup:
    """Makes what is not there yet: the tokenizer, in `folder`/tokenizer, and the tokens, in the cache.

    Raises MinigenError for whatever cannot be: a source, a size, a name, a backend.
    """
    config = absolute(config)
    check_names(config)
    ops, config = place_in(group, config)
    source = from_folder(config)
    if source is None:
        new_config(
            config.model, 0, {}, config.run.save_dtype
        )  # nor is anything made for a shape that cannot be
    teacher = open_teacher(config, ops)

    def written() -> list[str]:
        """The teacher's text. It is written when it is first asked for: what else may be wrong is said before."""
        if teacher is None or not config.teacher.tokens:
            return []
        return [
            str(teacher.text(folder, config, lambda done, total: progress(WRITING, done, total)))
        ]

    tokenizer_folder = folder / TOKENIZER
    if tokenizer_folder.is_dir():
        pass  # made before
    elif source is not None:
        copy_tokenizer(source, tokenizer_folder)
    else:
        make_tokenizer(config, tokenizer_folder, progress, written)
    tokenizer = open_tokenizer(tokenizer_folder)
    check_chat_tokens(tokenizer, config.data.chat)
    config, hub = model_config(config, tokenizer, source)
    family = find_family(hub)
    architecture = family.build(HubConfig(hub))
    check_sizes(config, architecture, tokenizer, source)
    lora = None
    if source is not None and config.model.lora_rank:
        lora = make_lora(config.model, ops, architecture, family, source)
    soft = None
    if teacher is not None:
        soft = teacher.soft_targets(tokenizer, tokenizer_folder, config.model.context)
    config, chat = run_template(config, tokenizer_folder)
    dataset = read_dataset(config, tokenizer, tokenizer_folder, chat, written, progress)
    batches = make_batches(config, dataset, group)
    config = config.replace(mode=batches.mode)
    rows = make_validation(config, dataset, batches.mode, architecture)
    prompt = sample_prompt(config, tokenizer, dataset, architecture)
    dataset.warn_of_cuts(config.model.context)
    template = None if chat is None else chat.template
    identity = "" if teacher is None else teacher.identity
    return Setup(
        config=config,
        ops=ops,
        hub=hub,
        family=family,
        architecture=architecture,
        tokenizer=tokenizer,
        tokenizer_folder=tokenizer_folder,
        dataset=dataset,
        batches=batches,
        validation=rows,
        prompt=prompt,
        stop_ids=tuple(end_ids(tokenizer, template)),
        lora=lora,
        teacher=identity,
        soft=soft,
        group=group,
    )


def check_names(config: Config) -> None:
    """What is wrong with a setting alone is said before anything is made. Raises MinigenError."""
    check_sources(config)
    run = config.run
    if run.save_every % run.eval_every:
        raise UsageError(
            f"save_every is {run.save_every}: it must be a multiple of eval_every, {run.eval_every}"
        )


def check_sizes(
    config: Config, architecture: Architecture, tokenizer: Tokenizer, source: Path | None
) -> None:
    """Raises UsageError for a context or a vocabulary that the model has not."""
    context = config.model.context
    if architecture.context is not None and context > architecture.context:
        raise UsageError(
            f"context is {context}: {source} reads at most {architecture.context} tokens"
        )
    if tokenizer.vocab_size > architecture.vocab_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model's vocabulary {architecture.vocab_size}: "
            "raise --vocab (0 takes the tokenizer's), or use a smaller tokenizer"
        )


def place_in(group: Group, config: Config) -> tuple[Backend, Config]:
    """The backend of this process, and the settings that say which and of how many; they are those of every process.

    Raises UsageError where there are more or fewer processes than the settings have.
    """
    wanted, there = config.run.processes, group.size
    if wanted not in (0, there):
        raise UsageError(
            f"processes is {wanted}, and there {'is 1' if there == 1 else f'are {there}'}: start {wanted}, which "
            f"torchrun --nproc-per-node {wanted} -m minigen and mlx.launch -n {wanted} minigen do, or begin another run"
        )
    name = check_backend(group, config.run.backend)
    device, threads = group.place(config.run.device or None), config.run.threads or None
    ops = get_backend(name, device, config.run.dtype, threads=threads)
    kind = (
        ops.device if group.size == 1 else ops.device.partition(":")[0]
    )  # each has a GPU of its own
    return ops, config.replace(backend=ops.name, device=kind, processes=there)


def absolute(config: Config) -> Config:
    """With names of files that mean the same wherever the run is taken up again."""

    def whole(name: str) -> str:
        return os.path.abspath(os.path.expanduser(name)) if name else name

    changes: dict[str, Any] = {}
    for name in ("data", "valid_data"):
        changes[name] = [whole(path) for path in config.values()[name]]
    if at_home(config.data.tokenizer).is_dir():
        changes["tokenizer"] = whole(config.data.tokenizer)
    if config.model.from_model:
        changes["from"] = str(resolve(config.model.from_model).resolve())
    if config.teacher.model:
        changes["teacher"] = resolve_teacher(config.teacher.model)
        if config.data.tokenizer == config.teacher.model:  # it may be a hub id
            changes["tokenizer"] = changes["teacher"]
    return config.replace(**changes)
