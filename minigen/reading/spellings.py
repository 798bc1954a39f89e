"""Other programs' names for our settings: one table for flags, `/set`, the library and files.

A name that means exactly one of the known ones is accepted where a person types it (flags,
`/set`), and suggested if it is in a file or a program. A name with several meanings is only ever
suggested.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

# Each line: names that mean the same; of these, a command or a file knows at most one.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    # generation, as in transformers, llama.cpp, ollama, mlx-lm, nanoGPT
    ("temp", "temperature"),
    ("top_k", "topk"),
    ("top_p", "topp"),
    ("min_p", "minp"),
    ("typical_p", "typical", "typicalp"),
    ("repetition_penalty", "repeat_penalty"),
    ("no_repeat_ngram", "no_repeat_ngram_size"),
    ("max_tokens", "max_new_tokens", "n_predict", "num_predict", "predict", "n"),
    ("num_samples", "num_return_sequences", "n_samples"),
    ("beams", "num_beams", "beam_width", "beam_size"),
    ("draft", "draft_model", "model_draft"),
    ("draft_tokens", "num_draft_tokens", "draft_max"),
    ("stop", "stop_string", "stop_strings", "stop_sequence", "stop_sequences"),
    ("system", "system_prompt", "sys"),
    ("file", "files", "prompt_file"),
    ("cache", "prompt_cache", "prompt_cache_file"),
    # models
    ("model", "models", "model_path", "model_name_or_path", "model_id", "hf_path", "hf_repo"),
    ("from", "from_pretrained", "base_model", "model_name_or_path"),
    (
        "context",
        "window",
        "ctx_size",
        "num_ctx",
        "n_ctx",
        "c",
        "context_length",
        "max_seq_length",
        "block_size",
    ),
    ("quant", "quantize", "quantization", "q_bits"),
    ("quant_group", "q_group_size", "group_size"),
    ("dtype", "torch_dtype"),
    ("offline", "local_files_only"),
    ("threads", "num_threads", "n_threads"),
    ("out", "output", "output_dir", "out_dir", "mlx_path"),
    # measuring, as in lm-evaluation-harness and llama-bench
    ("shots", "num_fewshot", "n_shots"),
    ("stride", "ppl_stride"),
    ("n_prompt", "prompt_tokens"),
    ("n_gen", "generation_tokens"),
    ("repetitions", "reps", "num_trials"),
    # training, as in nanoGPT, transformers, peft, mlx-lm
    ("data", "dataset", "train_data", "train_file"),
    ("valid_data", "val_data", "validation_file"),
    ("valid", "val_split", "validation_split"),
    ("layers", "n_layer", "n_layers", "num_layers", "num_hidden_layers"),
    ("heads", "n_head", "n_heads", "num_heads", "num_attention_heads"),
    ("kv_heads", "n_kv_heads", "num_kv_heads", "num_key_value_heads"),
    ("width", "n_embd", "d_model"),
    ("hidden", "intermediate_size", "d_ff"),
    ("vocab", "vocab_size"),
    ("tied", "tie_word_embeddings"),
    ("lora_rank", "lora_r"),
    ("optimizer", "optim"),
    ("lr", "learning_rate"),
    ("batch", "batch_size", "per_device_train_batch_size"),
    ("accumulate", "gradient_accumulation_steps", "grad_accum"),
    ("steps", "max_steps", "num_steps", "iters", "max_iters"),
    ("warmup", "warmup_steps", "warmup_iters"),
    ("schedule", "lr_scheduler_type", "lr_schedule"),
    ("clip", "grad_clip", "max_grad_norm"),
    ("eps", "adam_epsilon"),
    ("ema", "ema_decay"),
    ("eval_every", "eval_interval", "eval_steps", "steps_per_eval"),
    ("save_every", "save_interval", "save_steps"),
    ("log_every", "log_interval", "logging_steps", "steps_per_report"),
    ("keep", "save_total_limit"),
    ("resume", "resume_from_checkpoint"),
    ("wandb", "wandb_project"),
)

# Names with another meaning elsewhere, or with several: what the user may mean.
HINTS: dict[str, tuple[str, ...]] = {
    "t": ("temp", "threads"),  # llama.cpp's threads, others' temperature
    "max_length": ("max_tokens", "context"),  # transformers counts the prompt too
    "do_sample": ("temp",),
    "greedy": ("temp",),
    "load_in_8bit": ("quant",),
    "load_in_4bit": ("quant",),
    "bf16": ("dtype",),
    "fp16": ("dtype",),
    "epochs": ("steps",),
    "num_train_epochs": ("steps",),
    "hidden_size": ("width", "hidden"),  # transformers' is the width, ours the feed-forward's
    "min_lr": ("final",),  # nanoGPT's is a rate, ours a share
    "seed": ("seeds",),
}


def spellings(known: Iterable[str]) -> dict[str, str]:
    """The known name for every name that can only mean that one; names have underscores."""
    known_names = list(known)
    meanings: dict[str, list[str]] = {}
    for group in SYNONYMS:
        for target in known_names:
            if target not in group:
                continue
            for name in group:
                meanings.setdefault(name, []).append(target)
    table = {name: targets[0] for name, targets in meanings.items() if len(targets) == 1}
    for name in known_names:
        table[name] = name
    return table


def nearest(name: str, known: Collection[str]) -> list[str]:
    """What an unknown name may mean: names of `spellings(known)`, or none."""
    table = spellings(known)
    if name in table:
        return [name]
    hinted = [target for target in HINTS.get(name, ()) if target in table]
    if hinted:
        return hinted
    synonyms = []
    for group in SYNONYMS:
        if name in group:
            synonyms += [target for target in group if target in known]
    if synonyms:
        return synonyms
    return get_close_matches(name, table, 1)


def advice(name: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown name: the nearest known one, else a list of all."""
    names = list(known)
    table = spellings(names)
    near = list(dict.fromkeys(table[match] for match in nearest(name, names)))
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(names)}"
