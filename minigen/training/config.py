"""The settings of a run: one list of frozen fields, of which flags, TOML and the saved train.toml are made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from minigen.backends.training import Optimizer
from minigen.families.new import NEW_MODELS
from minigen.reading import settings
from minigen.reading.settings import setting


@dataclass(frozen=True)
class ModelConfig:
    model: str = setting("llama", "what to train", choices=tuple(NEW_MODELS), shape=True)
    layers: int = setting(4, "layers", least=1, shape=True)
    heads: int = setting(4, "attention heads", least=1, shape=True)
    kv_heads: int = setting(
        0, "key-value heads (grouped-query attention); 0: the same as --heads", least=0, shape=True
    )
    width: int = setting(
        128,
        "width of the residual stream (recurrent models: of the embedding)",
        least=1,
        shape=True,
    )
    hidden: int = setting(
        0,
        "width of the feed-forward layer or the recurrent state; 0: 4 x width (gpt), 8/3 x width "
        "(llama), width (recurrent)",
        least=0,
        shape=True,
    )
    context: int = setting(0, "context length in tokens, in training too; 0: 128", least=0)
    vocab: int = setting(0, "vocabulary size; 0: the tokenizer's", least=0, shape=True)
    tied: bool = setting(True, "use one matrix for the embedding and the head", shape=True)
    dropout: float = setting(0.0, "dropout probability", least=0, below=1)
    from_model: str = setting("", "fine-tune this model: a folder or a hub id", key="from")
    lora_rank: int = setting(
        0, "rank of a LoRA adapter for the model of --from; 0: train all weights", least=0
    )
    lora_alpha: float = setting(16.0, "scale the adapter by alpha / rank", above=0)
    lora_target: str = setting(
        "all",
        "which matrices get an adapter: all, or those of attention only",
        choices=("all", "attention"),
    )


@dataclass(frozen=True)
class DataConfig:
    data: tuple[str, ...] = setting(
        (), "text files, folders or globs; .jsonl files have a text or messages per line"
    )
    tokenizer: str = setting(
        "bpe:1024",
        "char, bytes, bpe:N (trained on the data, N tokens), gpt2, or a folder; with --from or "
        "--teacher, that model's tokenizer",
    )
    chat: str = setting(
        "",
        "format of conversations (default: the chat template of the model of --from, or of the "
        "tokenizer's folder)",
        choices=("", "phi3", "chatml"),
    )
    chat_date: str = setting("", "date for chat templates that ask for one (default: today)")
    separator: str = setting("", "text between documents (default: a line with <|endoftext|>)")
    valid: float = setting(0.05, "share of the data used for validation", above=0, below=1)
    valid_data: tuple[str, ...] = setting(
        (), "files, folders or globs for validation, instead of a share of the data"
    )
    mode: str = setting(
        "auto",
        "random windows of the text, or whole documents, shuffled each epoch",
        choices=("auto", "windows", "documents"),
    )


@dataclass(frozen=True)
class TeacherConfig:
    model: str = setting("", "distill from this model: a folder or a hub id", key="teacher")
    weight: float = setting(
        0.5,
        "weight of the distance from the teacher's probabilities in the loss; needs the student's "
        "tokenizer",
        least=0,
        most=1,
        key="teacher_weight",
    )
    temperature: float = setting(
        1.0, "softmax temperature of teacher and student", above=0, key="teacher_temperature"
    )
    tokens: int = setting(
        0,
        "tokens of text that the teacher generates first, to train on in addition to DATA; 0: none",
        least=0,
        key="teacher_tokens",
    )


@dataclass(frozen=True)
class ScheduleConfig:
    steps: int = setting(1000, "number of weight updates", least=1)
    batch: int = setting(16, "rows per batch in each process", least=1)
    accumulate: int = setting(1, "batches per update (gradient accumulation)", least=1)
    lr: float = setting(1e-3, "highest learning rate", above=0)
    warmup: int = setting(100, "steps of linear warmup to the highest learning rate", least=0)
    schedule: str = setting(
        "cosine", "cosine decay, or wsd: constant, then linear decay", choices=("cosine", "wsd")
    )
    final: float = setting(0.1, "final learning rate, as a share of the highest", least=0, most=1)
    decay: float = setting(0.5, "share of the steps in which wsd decays", above=0, most=1)


@dataclass(frozen=True)
class RunConfig:
    seed: int = setting(1, "seed of initial weights, batches and dropout", least=0)
    eval_every: int = setting(250, "steps between validations", least=1)
    save_every: int = setting(
        0,
        "steps between checkpoints, a multiple of --eval-every; 0: the same as --eval-every",
        least=0,
    )
    keep: int = setting(2, "checkpoints to keep, in addition to the best", least=1, free=True)
    log_every: int = setting(10, "steps between reports", least=1, free=True)
    sample_tokens: int = setting(
        80, "tokens of the sample generated at each validation; 0: none", least=0, free=True
    )
    prompt: str = setting("", "prompt of the sample (default: the start of a document)", free=True)
    backend: str = setting(
        "auto", "framework: torch, mlx, or whichever is installed", choices=("auto", "torch", "mlx")
    )
    device: str = setting("", "cuda, cuda:1, cpu (torch); gpu, cpu (mlx)")
    threads: int = setting(0, "CPU threads (torch); 0: one per core", least=0)
    processes: int = setting(
        0,
        "processes that train together under torchrun or mlx.launch; 0: all that were started",
        least=0,
    )
    dtype: str = setting(
        "float32",
        "dtype of the computation; bfloat16 is mixed precision with float32 weights",
        choices=("float32", "bfloat16"),
    )
    compile: bool = setting(False, "compile the training step")
    deterministic: bool = setting(
        True,
        "give the same bytes in every run and after a resume; on a GPU this costs some speed",
    )
    save_dtype: str = setting(
        "float32", "dtype of the saved weights", choices=("float32", "bfloat16")
    )
    tensorboard: bool = setting(
        False, "also write TensorBoard logs into the run's folder", free=True
    )
    wandb: str = setting("", "a Weights & Biases project to report to", free=True)


@dataclass(frozen=True)
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def values(self) -> dict[str, Any]:
        """Every setting by the name that users know."""
        return {
            name: getattr(getattr(self, group), f.name) for name, (group, f) in SETTINGS.items()
        }

    def replace(self, **values: Any) -> Config:
        """With these settings, by the names that users know, checked. Raises UsageError."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            group, found = SETTINGS[name]
            groups.setdefault(group, {})[found.name] = checked(name, value)
        changed = {
            group: dataclasses.replace(getattr(self, group), **new) for group, new in groups.items()
        }
        return dataclasses.replace(self, **changed)


def listed() -> dict[str, tuple[str, dataclasses.Field[Any]]]:
    groups = {f.name: f.default_factory for f in dataclasses.fields(Config)}
    found: dict[str, tuple[str, dataclasses.Field[Any]]] = {}
    for group, kind in groups.items():
        for f in dataclasses.fields(kind):  # type: ignore[arg-type]
            name = f.metadata["key"] or f.name
            assert name not in found
            found[name] = (group, f)
    return found


SETTINGS = listed()  # name -> (group, field)
SHAPE = tuple(name for name, (_, f) in SETTINGS.items() if f.metadata["shape"])
LORA = tuple(name for name in SETTINGS if name.startswith("lora_"))
FREE = tuple(name for name, (_, f) in SETTINGS.items() if f.metadata["free"])


def checked(name: str, value: Any) -> Any:
    """The value of a setting in its type. Raises UsageError, naming the setting, for one that it cannot have."""
    _, about = SETTINGS[name]
    return settings.checked(name, about, value)
