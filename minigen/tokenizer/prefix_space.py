"""Whether a text begins with a space, if tokenizer_config.json and tokenizer.json disagree.

For some classes of tokenizers, transformers uses only the vocabulary of tokenizer.json, and
`add_prefix_space` of tokenizer_config.json decides; for the others tokenizer.json decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.tokenizer.files import Settings, log

# Classes (without "Fast") by how they write a space. These byte-level ones add none by default.
BYTE_LEVEL = {
    "GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "RobertaTokenizer", "BartTokenizer",
    "WhisperTokenizer", "Qwen2Tokenizer", "Qwen3_5Tokenizer", "CohereTokenizer",
}  # fmt: skip
METASPACE = {"LlamaTokenizer", "CodeLlamaTokenizer"}
SPACE = "▁"

Spec = Mapping[str, Any]


def settle_prefix_space(path: Path, spec: Spec, settings: Settings) -> Spec:
    """The content of tokenizer.json with the space that the settings ask for.

    Warns if the two differ.

    Args:
        path: tokenizer.json, for messages.
        spec: Its content; it is not changed.
        settings: What the other files say.

    Returns:
        `spec` itself, or a changed copy.
    """
    stated, requested, kind = (
        stated_space(spec),
        settings.add_prefix_space,
        settings.tokenizer_class,
    )
    if requested is None and kind in BYTE_LEVEL:
        requested = False
    if stated is None or requested is None or stated == requested:
        return spec
    level = _byte_level(spec.get("pre_tokenizer"))
    settings_decide = kind in METASPACE
    if level is not None:
        settings_decide = kind in BYTE_LEVEL or not kind
    log.warning(
        "%s: add_prefix_space is %s for a %s, but %s says %s: using the %s",
        settings.place,
        str(requested).lower(),
        kind or "tokenizer without a class",
        path.name,
        str(stated).lower(),
        "former" if settings_decide else "latter",
    )
    if not settings_decide:
        return spec
    if level is not None:
        return {**spec, "pre_tokenizer": _with_byte_level(spec["pre_tokenizer"], requested)}
    if requested:
        return _with_space(spec, "always" if settings.legacy else "first")
    return _without_space(spec)


def stated_space(spec: Spec) -> bool | None:
    """Whether tokenizer.json puts a space before a text; None if it says nothing about it."""
    level = _byte_level(spec.get("pre_tokenizer"))
    if level is not None:
        return level.get("add_prefix_space") is True
    metaspace = _metaspace(spec.get("pre_tokenizer"))
    if metaspace is not None:
        old_setting = "always" if metaspace.get("add_prefix_space", True) else "never"
        return bool(metaspace.get("prepend_scheme", old_setting) != "never")
    steps = _steps(spec.get("normalizer"), "normalizers")
    if not any(_writes_space(step) for step in steps):
        return None
    return any(step.get("type") == "Prepend" for step in steps)


def _byte_level(pre_tokenizer: Any) -> Spec | None:
    """The last step of a pre-tokenizer, if it is the byte-level one."""
    steps = _steps(pre_tokenizer, "pretokenizers")
    if not steps or steps[-1].get("type") != "ByteLevel":
        return None
    return steps[-1]


def _metaspace(pre_tokenizer: Any) -> Spec | None:
    """The only step of a pre-tokenizer, if it is Metaspace."""
    steps = _steps(pre_tokenizer, "pretokenizers")
    if len(steps) != 1 or steps[0].get("type") != "Metaspace":
        return None
    return steps[0]


def _writes_space(step: Spec) -> bool:
    """Whether a normalizer replaces spaces by SPACE."""
    replaced, content = step.get("pattern"), step.get("content")
    return step.get("type") == "Replace" and replaced == {"String": " "} and content == SPACE


def _steps(part: Any, key: str) -> list[Spec]:
    """The steps of a sequence, or the single step that a part is; none if it is neither."""
    steps: Any = [part]
    if isinstance(part, dict) and part.get("type") == "Sequence":
        steps = part.get(key)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return []
    return steps


def _without_type(steps: list[Spec], name: str) -> list[Spec]:
    """The steps of any other type."""
    return [step for step in steps if step.get("type") != name]


def _with_byte_level(pre_tokenizer: Spec, add_space: bool) -> Spec:
    """A byte-level pre-tokenizer that adds a space or does not."""
    if pre_tokenizer.get("type") == "ByteLevel":
        return {**pre_tokenizer, "add_prefix_space": add_space}
    *before, last = pre_tokenizer["pretokenizers"]
    changed = {**last, "add_prefix_space": add_space}
    return {**pre_tokenizer, "pretokenizers": [*before, changed]}


def _with_space(spec: Spec, scheme: str) -> Spec:
    """Metaspace that adds a space, which its decoder removes again."""
    changed = dict(spec)
    steps = _steps(spec.get("normalizer"), "normalizers")
    others = [step for step in steps if not _writes_space(step)]
    changed["normalizer"] = None
    if others:
        changed["normalizer"] = {"type": "Sequence", "normalizers": others}
    changed["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": scheme,
        "split": False,
    }
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    changed["decoder"] = _decoder(spec.get("decoder"), "always", [strip])
    return changed


def _without_space(spec: Spec) -> Spec:
    """Metaspace that adds no space, with a decoder that removes none."""
    changed = dict(spec)
    metaspace = _metaspace(spec.get("pre_tokenizer"))
    if metaspace is not None:
        metaspace = {**metaspace, "prepend_scheme": "never"}
        metaspace.pop("add_prefix_space", None)
        changed["pre_tokenizer"] = metaspace
    else:
        steps = _steps(spec.get("normalizer"), "normalizers")
        others = _without_type(steps, "Prepend")
        changed["normalizer"] = {"type": "Sequence", "normalizers": others}
    changed["decoder"] = _decoder(spec.get("decoder"), "never", [])
    return changed


def _decoder(decoder: Any, scheme: str, strip: list[Spec]) -> Any:
    """A decoder with another scheme, or with these steps instead of its own Strip."""
    if isinstance(decoder, dict) and decoder.get("type") == "Metaspace":
        return {**decoder, "prepend_scheme": scheme}
    steps = _steps(decoder, "decoders")
    if not steps:
        return decoder
    others = _without_type(steps, "Strip")
    return {"type": "Sequence", "decoders": [*others, *strip]}
