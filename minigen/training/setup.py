"""From settings to everything a run needs: tokenizer, data, model and batches, all checked before a step is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from minigen.training.data import Batches, Dataset, Validation, open_tokenizer, prepare, validation
from minigen.training.data.identity import tokenizer_identity
from minigen.training.lora import Lora, make_lora
from minigen.training.model_files import (
    as_json,
    check_chat_tokens,
    end_ids,
    first_ids,
    from_folder,
    model_config,
    text_files,
)
from minigen.training.teacher import WRITING, check_sources, open_teacher, resolve_teacher
from minigen.training.tokenizer_files import copy_tokenizer, make_tokenizer
from minigen.training.trainer import Optimizer, Trainer
from minigen.tree import flatten, unflatten

TOKENIZER = "tokenizer"  # the folder in RUN

Progress = Callable[[str, int, int], None]  # what is being read, bytes done, of all (0: nobody knows)


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

    def trainer(self, params: Tree | None = None, *, optimizer: Optimizer | None = None, **changes: Any) -> Trainer:
        """At the beginning of the run, or with other weights, another optimizer or settings."""
        c = self.config
        settings: dict[str, Any] = {"dropout": c.model.dropout, "seed": c.run.seed, "compile": c.run.compile}
        settings |= {"group": self.group, "teacher": self.soft, "deterministic": c.run.deterministic}
        params = self.initial() if params is None else params
        return Trainer(self.ops, self.lora or self.architecture, params, optimizer or c.optimizer, **settings | changes)

    def model_files(self) -> dict[str, bytes]:
        """The small files of a model folder by name."""
        files = text_files(self.config, self.tokenizer, self.tokenizer_folder, self.stop_ids)
        if self.lora is not None:
            return files | {adapters.CONFIG: as_json(self.lora.config())}
        return files | {"config.json": as_json(self.hub)}


def build(
    config: Config, folder: Path, progress: Progress = lambda what, done, total: None, group: Group = ALONE
) -> Setup:
    """Makes what is not there yet: the tokenizer, in `folder`/tokenizer, and the tokens, in the cache.

    Raises MinigenError for whatever cannot be: a source, a size, a name, a backend.
    """
    config = absolute(config)
    check_sources(config)  # what is wrong with a name is said before anything is made
    if config.run.save_every % config.run.eval_every:
        raise UsageError(
            f"save_every is {config.run.save_every}: it must be a multiple of eval_every, {config.run.eval_every}"
        )
    ops, config = place_in(group, config)
    source = from_folder(config)
    if source is None:
        new_config(config.model, 0, {}, config.run.save_dtype)  # nor is anything made for a shape that cannot be
    teacher = open_teacher(config, ops)

    def written() -> list[str]:
        """The teacher's text. It is written when it is first asked for: what else may be wrong is said before."""
        if teacher is None or not config.teacher.tokens:
            return []
        return [str(teacher.text(folder, config, lambda done, total: progress(WRITING, done, total)))]

    place = folder / TOKENIZER
    if not place.is_dir():
        if source is not None:
            copy_tokenizer(source, place)
        else:
            make_tokenizer(config, place, progress, written)
    tokenizer = open_tokenizer(place)
    check_chat_tokens(tokenizer, config.data.chat)
    config, hub = model_config(config, tokenizer, source)
    family = find_family(hub)
    architecture = family.build(HubConfig(hub))
    context = config.model.context
    if architecture.context is not None and context > architecture.context:
        raise UsageError(f"context is {context}: {source} reads at most {architecture.context} tokens")
    if tokenizer.vocab_size > architecture.vocab_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model's vocabulary {architecture.vocab_size}: "
            "raise --vocab (0 takes the tokenizer's), or use a smaller tokenizer"
        )
    m = config.model
    lora = make_lora(m, ops, architecture, family, source) if source is not None and m.lora_rank else None
    soft = None if teacher is None else teacher.soft_targets(tokenizer, place, context)
    config, chat = run_template(config, place)
    data, micros = config.data, config.schedule.accumulate * group.size
    dataset = prepare(
        data.data,
        tokenizer,
        place,
        chat=chat,
        separator=data.separator or None,
        valid=data.valid,
        valid_sources=data.valid_data,
        train_sources=written(),
        progress=lambda done, total: progress("reading the data", done, total),
    )
    mode: Any = None if data.mode == "auto" else data.mode
    batches = Batches(dataset.train, config.schedule.batch, context, config.run.seed, mode=mode, micros=micros)
    config = config.replace(mode=batches.mode)
    held = validation(dataset.valid, 1, context, batches.mode)
    # Rows of a validation cost no gradient: more of them at once, where the logits are not too large.
    most = max(config.schedule.batch, min(8192 // context, 2**24 // (context * architecture.vocab_size)))
    held = replace(held, batch=-(-len(held) // -(-len(held) // most)))
    prompt = sample_prompt(config, tokenizer, dataset, architecture)
    dataset.warn_of_cuts(context)
    stop = tuple(end_ids(tokenizer, None if chat is None else chat.template))
    known = "" if teacher is None else teacher.identity
    return Setup(
        config,
        ops,
        hub,
        family,
        architecture,
        tokenizer,
        place,
        dataset,
        batches,
        held,
        prompt,
        stop,
        lora,
        known,
        soft,
        group,
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
    kind = ops.device if group.size == 1 else ops.device.partition(":")[0]  # each has a GPU of its own
    return ops, config.replace(backend=ops.name, device=kind, processes=there)


def absolute(config: Config) -> Config:
    """With names of files that mean the same wherever the run is taken up again."""

    def whole(name: str) -> str:
        return os.path.abspath(os.path.expanduser(name)) if name else name

    changes: dict[str, Any] = {name: [whole(x) for x in config.values()[name]] for name in ("data", "valid_data")}
    if at_home(config.data.tokenizer).is_dir():
        changes["tokenizer"] = whole(config.data.tokenizer)
    if config.model.from_model:
        changes["from"] = str(resolve(config.model.from_model).resolve())
    if config.teacher.model:
        changes["teacher"] = resolve_teacher(config.teacher.model)
        if config.data.tokenizer == config.teacher.model:  # it may be a hub id
            changes["tokenizer"] = changes["teacher"]
    return config.replace(**changes)


def sample_prompt(
    config: Config, tokenizer: Tokenizer, dataset: Dataset, architecture: Architecture
) -> tuple[int, ...]:
    """The ids that a sample begins with. Raises UsageError where no token fits after them."""
    if config.run.prompt:
        ids = tokenizer.encode(config.run.prompt)
    elif not (ids := first_ids(tokenizer)):
        ids = dataset.valid.read(int(dataset.valid.index["start"][0]), 1)[0].tolist()
    if architecture.context is not None and len(ids) >= architecture.context:
        raise UsageError(f"the prompt of the sample has {len(ids)} tokens and the context is {architecture.context}")
    return tuple(ids)
