"""What `generate` reports about a run besides its text: JSON, log-probabilities, speed, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigen.generation.options import Options
    from minigen.generation.rows import Timing
    from minigen.generation.text import TextRun
    from minigen.model import Model


def rate(tokens: int, seconds: float) -> float | None:
    """Tokens per second; None if nothing was measured."""
    if tokens <= 0 or seconds <= 0:
        return None
    return tokens / seconds


def timing_of(run: TextRun) -> dict[str, Any]:
    """Seconds and tokens per second, as `Timing` defines them."""
    timing = run.timing
    return {
        "prompt_tokens": timing.prompt_tokens,
        "prefill_s": timing.prefill_s,
        "prefill_tps": rate(timing.prompt_tokens, timing.prefill_s),
        "first_token_s": timing.first_token_s,
        "generated_tokens": sum(len(row.ids) for row in run.rows),
        "decode_s": timing.decode_s,
        "decode_tps": rate(timing.decode_tokens, timing.decode_s),
        "drafted_tokens": timing.drafted,
        "accepted_tokens": timing.accepted,
    }


def as_json(model: Model, run: TextRun, options: Options, load_s: float) -> dict[str, Any]:
    """One object for the whole run."""
    results = []
    for completion in run.completions():
        result: dict[str, Any] = {
            "prompt": completion.prompt,
            "text": completion.text,
            "ids": completion.ids,
            "finish": completion.finish or "interrupted",
        }
        if options.logprobs is not None:
            result["logprobs"] = logprobs_as_json(
                model, completion.logprobs, top=options.logprobs > 0
            )
        results.append(result)
    settings = {}
    for field in fields(options):
        if field.name != "sampling":
            settings[field.name] = getattr(options, field.name)
    sampling = options.sampling.flat()
    sampling["logit_bias"] = {str(token): bias for token, bias in sampling["logit_bias"].items()}
    return {
        "model": str(model.folder),
        "backend": model.backend,
        "device": model.device,
        "dtype": model.dtype,
        "quant": model.quant,
        "kv": model.kv,
        "settings": settings,
        "sampling": sampling,
        "results": results,
        "timing": {"load_s": load_s, **timing_of(run)},
        "peak_memory_bytes": model.runner.ops.memory(),
    }


def logprobs_as_json(model: Model, tokens: Sequence[Any], top: bool) -> list[dict[str, Any]]:
    """Each token with its log-probability; with `top`, also the most likely tokens there."""
    objects = []
    for token in tokens:
        row = {"id": token.id, "token": piece(model, token.id), "logprob": token.logprob}
        if top:
            row["top"] = [[id_, piece(model, id_), logprob] for id_, logprob in token.top]
        objects.append(row)
    return objects


def piece(model: Model, token: int) -> str:
    """The text of one token, with its leading space; U+FFFD for a part of a character."""
    return model.needed_tokenizer.token_bytes(token).decode("utf-8", "replace")


def logprob_table(model: Model, run: TextRun) -> str:
    """One line per token: its log-probability, the token, and the alternatives."""
    blocks = []
    for number, completion in enumerate(run.completions()):
        lines = []
        if len(run.rows) > 1:
            lines.append(f"==> {run.label(number)} <==")
        for token in completion.logprobs:
            top = "  ".join(f"{piece(model, id_)!r} {p:.3f}" for id_, p in token.top)
            line = f"{token.logprob:9.4f}  {piece(model, token.id)!r:<16}  {top}"
            lines.append(line.rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def acceptance(timing: Timing) -> str:
    """How many drafted tokens were accepted, and the tokens per pass, which is 1 without drafts."""
    passes = timing.decode_tokens - timing.accepted
    text = f"{timing.accepted} of {timing.drafted} drafted tokens accepted"
    if timing.drafted:
        text += f", {timing.accepted / timing.drafted:.0%}"
    if passes:
        text += f", {timing.decode_tokens / passes:.2f} tokens per pass"
    return text


def speed(tokens: int, seconds: float) -> str:
    """The tokens, the seconds and, if they can be computed, the tokens per second."""
    text = f"{tokens} tokens in {seconds:.3f} s"
    per_second = rate(tokens, seconds)
    if per_second is not None:
        text += f", {per_second:.1f} tokens/s"
    return text


def statistics(model: Model, run: TextRun, speculative: bool = False) -> str:
    """Speed and memory for people; for a speculative run, also how many drafts were accepted."""
    timing = run.timing
    memory = model.runner.ops.memory() / 2**20
    lines = [
        f"prefill      {speed(timing.prompt_tokens, timing.prefill_s)}",
        f"decode       {speed(timing.decode_tokens, timing.decode_s)}",
        f"first token  {timing.first_token_s:.3f} s after loading",
        f"peak memory  {memory:.0f} MiB",
    ]
    if speculative:
        lines.insert(2, f"speculation  {acceptance(timing)}")
    return "\n".join(f"minigen: {line}" for line in lines)
