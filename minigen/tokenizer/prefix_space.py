"""Whether a text gets a space in front, where tokenizer_config.json and tokenizer.json say different things.

transformers makes some classes of tokenizers anew from the vocabulary of tokenizer.json, and there `add_prefix_space`
of tokenizer_config.json counts; for the others it takes tokenizer.json as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.tokenizer.files import Settings, log

# Classes (without "Fast") by how they write a space. The byte-level ones that are named add none where nothing is said.
BYTE_LEVEL = {
    "GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "RobertaTokenizer", "BartTokenizer", "WhisperTokenizer",
    "Qwen2Tokenizer", "Qwen3_5Tokenizer", "CohereTokenizer",
}  # fmt: skip
METASPACE = {"LlamaTokenizer", "CodeLlamaTokenizer"}
SPACE = "▁"

Spec = Mapping[str, Any]


def settle_prefix_space(path: Path, spec: Spec, settings: Settings) -> Spec:
    """`spec`, the content of tokenizer.json, or a copy that does what the settings say. Warns where they differ."""
    there, wanted, kind = stated(spec), settings.add_prefix_space, settings.tokenizer_class
    if wanted is None and kind in BYTE_LEVEL:
        wanted = False
    if there is None or wanted is None or there == wanted:
        return spec
    level = _byte_level(spec.get("pre_tokenizer"))
    known = kind in METASPACE if level is None else kind in BYTE_LEVEL or not kind
    log.warning(
        "%s: add_prefix_space is %s for a %s, and %s says %s: the %s is taken",
        settings.place,
        str(wanted).lower(),
        kind or "tokenizer without a class",
        path.name,
        str(there).lower(),
        "former" if known else "latter",
    )
    if not known:
        return spec
    if level is not None:
        return {**spec, "pre_tokenizer": _with_byte_level(spec["pre_tokenizer"], wanted)}
    return _with_metaspace(spec, wanted, "always" if settings.legacy else "first")


def stated(spec: Spec) -> bool | None:
    """Whether tokenizer.json puts a space in front of a text; None where it has no place that says so."""
    level = _byte_level(spec.get("pre_tokenizer"))
    if level is not None:
        return level.get("add_prefix_space") is True
    space = _metaspace(spec.get("pre_tokenizer"))
    if space is not None:
        older = "always" if space.get("add_prefix_space", True) else "never"
        return bool(space.get("prepend_scheme", older) != "never")
    steps = _steps(spec.get("normalizer"), "normalizers")
    if any(_writes_space(step) for step in steps):
        return any(step.get("type") == "Prepend" for step in steps)
    return None


def _byte_level(cut: Any) -> Spec | None:
    """The last step of a pre-tokenizer, if it is the byte-level one."""
    steps = _steps(cut, "pretokenizers")
    return steps[-1] if steps and steps[-1].get("type") == "ByteLevel" else None


def _metaspace(cut: Any) -> Spec | None:
    steps = _steps(cut, "pretokenizers")
    return steps[0] if len(steps) == 1 and steps[0].get("type") == "Metaspace" else None


def _writes_space(step: Spec) -> bool:
    return step.get("type") == "Replace" and step.get("pattern") == {"String": " "} and step.get("content") == SPACE


def _steps(part: Any, inner: str) -> list[Spec]:
    """The steps of a sequence, or the one step that a part is; none where it is neither."""
    steps = part.get(inner) if isinstance(part, dict) and part.get("type") == "Sequence" else [part]
    return steps if isinstance(steps, list) and all(isinstance(step, dict) for step in steps) else []


def _with_byte_level(cut: Spec, wanted: bool) -> Spec:
    if cut.get("type") == "ByteLevel":
        return {**cut, "add_prefix_space": wanted}
    *before, last = cut["pretokenizers"]
    return {**cut, "pretokenizers": [*before, {**last, "add_prefix_space": wanted}]}


def _with_metaspace(spec: Spec, wanted: bool, scheme: str) -> Spec:
    """The space is put in front by the pre-tokenizer or by the normalizer, and taken off again by the decoder."""
    changed = dict(spec)
    steps = _steps(spec.get("normalizer"), "normalizers")
    if wanted:
        rest = [step for step in steps if not _writes_space(step)]
        changed["normalizer"] = {"type": "Sequence", "normalizers": rest} if rest else None
        changed["pre_tokenizer"] = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    elif (cut := _metaspace(spec.get("pre_tokenizer"))) is not None:
        kept = {key: value for key, value in cut.items() if key != "add_prefix_space"}
        changed["pre_tokenizer"] = {**kept, "prepend_scheme": "never"}
    else:
        rest = [step for step in steps if step.get("type") != "Prepend"]
        changed["normalizer"] = {"type": "Sequence", "normalizers": rest}
    decoder = spec.get("decoder")
    if isinstance(decoder, dict) and decoder.get("type") == "Metaspace":
        changed["decoder"] = {**decoder, "prepend_scheme": "always" if wanted else "never"}
    elif parts := _steps(decoder, "decoders"):
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if wanted else []
        others = [step for step in parts if step.get("type") != "Strip"]
        changed["decoder"] = {"type": "Sequence", "decoders": [*others, *strip]}
    return changed
