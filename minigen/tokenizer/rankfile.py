"""Files without a tokenizer.json: tiktoken's rank files, and the vocabulary and merges of GPT-2."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError
from minigen.tokenizer.base import SEPARATOR, Tokenizer
from minigen.tokenizer.bytelevel import (
    CL100K_PATTERN,
    GPT2_PATTERN,
    O200K_PATTERN,
    QWEN_PATTERN,
    TiktokenTokenizer,
)
from minigen.tokenizer.files import Settings, parse_json, read_text
from minigen.tokenizer.proof import BYTE_OF, UTF8_BYTES
from minigen.tokenizer.special import MOST_IDS
from minigen.tokenizer.tokenizer_json import from_tokenizer_json, read_vocab

END = SEPARATOR
_FIM = {"<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260}
# A rank file does not say how a text is cut. These are known by the SHA-256 of their content.
KNOWN: dict[str, tuple[str, dict[str, int]]] = {
    # r50k_base
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": (GPT2_PATTERN, {END: 50256}),
    # p50k_base
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": (GPT2_PATTERN, {END: 50256}),
    # cl100k_base
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": (
        CL100K_PATTERN,
        {END: 100257, **_FIM, "<|endofprompt|>": 100276},
    ),
    # o200k_base
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": (
        O200K_PATTERN,
        {END: 199999, "<|endofprompt|>": 200018},
    ),
}
# Tokenizer classes (without "Fast") whose vocab.json and merges.txt are used as GPT-2's are.
LIKE_GPT2 = ("", "GPT2Tokenizer", "CodeGenTokenizer", "RobertaTokenizer", "BartTokenizer")


def from_rank_file(path: Path, config: Mapping[str, Any], settings: Settings) -> Tokenizer:
    """From a *.tiktoken file: a line for each token, its bytes in base64 and its rank, which is its id.

    Raises TokenizerError: the file is broken, or nothing says with which pattern to cut a text.
    """
    text = read_text(path)
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            data, i = base64.b64decode(token, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise TokenizerError(f"{path}: line {number} is not a token in base64 and its rank") from None
        if not data or not 0 <= i < MOST_IDS or data in ranks:
            raise TokenizerError(f"{path}: line {number} repeats a token, or has an empty one or a bad rank")
        ranks[data] = i
    if len(set(ranks.values())) != len(ranks):
        raise TokenizerError(f"{path}: two tokens have the same rank")
    lacking = [byte for byte in range(256) if bytes((byte,)) not in ranks]
    if lacking:
        raise TokenizerError(f"{path}: no token for the byte 0x{lacking[0]:02X}; is the file complete?")

    known = KNOWN.get(hashlib.sha256(text.encode("utf-8")).hexdigest())
    if known is not None:
        pattern, special = known[0], dict(known[1])
    elif "qwen" in (config.get("model_type"), path.stem, settings.tokenizer_class.lower()[:4]):
        pattern = QWEN_PATTERN
        names = (END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205)))
        special = {name: len(ranks) + n for n, name in enumerate(names)}
    else:
        raise TokenizerError(
            f"{path}: {len(ranks)} ranks of an unknown model: how it cuts text before the merges is missing; "
            "add its tokenizer.json"
        )
    special |= {token.content: token.id for token in (*settings.older, *settings.added)}
    taken = set(ranks.values())
    wrong = next((name for name, i in special.items() if i in taken), None)
    if wrong is not None or len(set(special.values())) != len(special):
        raise TokenizerError(f"{path}: the control token {wrong or ''!r} has the id of another token")
    size = 1 + max(taken | set(special.values()))
    return TiktokenTokenizer(ranks, pattern, settings.controls(special, {}, size), source=str(path))


def from_gpt2_files(merges_path: Path, vocab_path: Path, settings: Settings) -> Tokenizer:
    """From vocab.bpe and encoder.json (the names of GPT-2's release) or merges.txt and vocab.json (the
    hub's).

    A token that is neither a byte nor the product of a merge can only be a control token.

    Raises TokenizerError: a file is broken, or they belong to no byte-level tokenizer.
    """
    vocab = read_vocab(vocab_path, {"vocab": parse_json(vocab_path, read_text(vocab_path))})
    if not vocab.keys() >= UTF8_BYTES:
        lacking = min(UTF8_BYTES - vocab.keys())
        raise TokenizerError(f"{vocab_path}: not a byte-level vocabulary: it has no {lacking!r}; add a tokenizer.json")
    merges: list[list[str]] = []
    products: set[str] = set()
    for number, line in enumerate(read_text(merges_path).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise TokenizerError(f"{merges_path}: line {number} is not a pair of tokens: {line!r:.60}")
        missing = next((name for name in (*pair, "".join(pair)) if name not in vocab), None)
        if missing is not None:
            raise TokenizerError(f"{merges_path}: line {number} needs {missing!r:.60}, not in {vocab_path.name}")
        merges.append(pair)
        products.add("".join(pair))
    spec = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": name, "special": True}
            for name, i in vocab.items()
            if name not in BYTE_OF and name not in products
        ],
        "normalizer": None,
        **_cut(merges_path, settings),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    return from_tokenizer_json(merges_path, None, spec, settings)


def _cut(path: Path, settings: Settings) -> dict[str, Any]:
    """The normalizer and the pre-tokenizer of the class that the settings name."""
    level: dict[str, Any] = {
        "type": "ByteLevel",
        "add_prefix_space": settings.add_prefix_space is True,
        "trim_offsets": True,
        "use_regex": True,
    }
    if settings.tokenizer_class == "GPTNeoXTokenizer":
        return {"normalizer": {"type": "NFC"}, "pre_tokenizer": level}
    if settings.tokenizer_class in LIKE_GPT2:
        return {"pre_tokenizer": level}
    if settings.tokenizer_class == "Qwen2Tokenizer":
        split = {"type": "Split", "pattern": {"Regex": QWEN_PATTERN}, "behavior": "Isolated", "invert": False}
        steps = [split, {**level, "use_regex": False}]
        return {"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    raise TokenizerError(
        f"{path}: how a {settings.tokenizer_class} cuts text is not known here; add its tokenizer.json"
    )
