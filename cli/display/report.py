"""What `generate` says about a run beside its text: JSON, log-probabilities, speed and memory."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigen.generation.options import Options
    from minigen.generation.rows import Timing
    from minigen.generation.text import TextRun
    from minigen.model import Model


def rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 and tokens > 0 else None


def timing_of(run: TextRun) -> dict[str, Any]:
    """Seconds and tokens a second, as `Timing` defines them."""
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
            result["logprobs"] = [
                {"id": token.id, "token": piece(model, token.id), "logprob": token.logprob}
                | ({"top": [[i, piece(model, i), p] for i, p in token.top]} if options.logprobs else {})
                for token in completion.logprobs
            ]
        results.append(result)
    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name != "sampling"}
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


def piece(model: Model, token: int) -> str:
    """A token by itself, with its leading space; U+FFFD where it is a part of a character."""
    return model.needed_tokenizer.token_bytes(token).decode("utf-8", "replace")


def logprob_table(model: Model, run: TextRun) -> str:
    """A line a token: its log-probability, the token, and the alternatives."""
    lines = []
    for number, completion in enumerate(run.completions()):
        lines += ["", f"==> {run.label(number)} <=="] if len(run.rows) > 1 else [""]
        for token in completion.logprobs:
            best = "  ".join(f"{piece(model, i)!r} {p:.3f}" for i, p in token.top)
            lines.append(f"{token.logprob:9.4f}  {piece(model, token.id)!r:<16}  {best}".rstrip())
    return "\n".join(lines[1:])


def acceptance(timing: Timing) -> str:
    """How many guesses were right, and what that saved: the tokens of a pass, of which there is one without guesses."""
    passes = timing.decode_tokens - timing.accepted
    share = f", {timing.accepted / timing.drafted:.0%}" if timing.drafted else ""
    each = f", {timing.decode_tokens / passes:.2f} tokens a pass" if passes else ""
    return f"{timing.accepted} of {timing.drafted} guesses kept{share}{each}"


def statistics(model: Model, run: TextRun, guessed: bool = False) -> str:
    """Speed and memory, for people; with what became of the guesses where there were any to be."""
    t = timing_of(run)
    guesses = [f"minigen: speculation  {acceptance(run.timing)}"] if guessed else []

    def show(tokens: int, seconds: float, tps: float | None) -> str:
        return f"{tokens} tokens in {seconds:.3f} s" + ("" if tps is None else f", {tps:.1f} tokens/s")

    return "\n".join(
        [
            f"minigen: prefill      {show(t['prompt_tokens'], t['prefill_s'], t['prefill_tps'])}",
            f"minigen: decode       {show(run.timing.decode_tokens, t['decode_s'], t['decode_tps'])}",
            *guesses,
            f"minigen: first token  {t['first_token_s']:.3f} s after loading",
            f"minigen: peak memory  {model.runner.ops.memory() / 2**20:.0f} MiB",
        ]
    )
