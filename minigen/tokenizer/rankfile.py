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
# A rank file does not say how a text is split. These are known by the SHA-256 of their content.
KNOWN: dict[str, tuple[str, dict[str, int]]] = {
    # r50k_base
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": (
        GPT2_PATTERN,
        {END: 50256},
    ),
    # p50k_base
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": (
        GPT2_PATTERN,
        {END: 50256},
    ),
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
    """The tokenizer of a *.tiktoken file.

    It has a line for each token: its bytes in base64, and its rank, which is its id.

    Args:
        path: The file.
        config: The model's config.json, which may say which pattern splits a text.
        settings: What the other files say about control tokens.

    Raises TokenizerError: the file is broken, or nothing says which pattern splits a text.
    """
    text = read_text(path)
    ranks = read_ranks(path, text)
    pattern, special = pattern_and_special(path, text, ranks, config, settings)
    for token in (*settings.older, *settings.added):
        special[token.content] = token.id
    taken = set(ranks.values())
    for name, token_id in special.items():
        if token_id in taken:
            raise TokenizerError(f"{path}: the control token {name!r} has the id of another token")
        taken.add(token_id)
    controls = settings.controls(special, {}, 1 + max(taken))
    return TiktokenTokenizer(ranks, pattern, controls, source=str(path))


def read_ranks(path: Path, text: str) -> dict[bytes, int]:
    """The ids of the tokens in a rank file with this text, by their bytes."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            data, token_id = base64.b64decode(token, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise TokenizerError(
                f"{path}: line {number} is not a token in base64 and its rank"
            ) from None
        if not data or not 0 <= token_id < MOST_IDS or data in ranks:
            raise TokenizerError(
                f"{path}: line {number} repeats a token, or has an empty one or a bad rank"
            )
        ranks[data] = token_id
    if len(set(ranks.values())) != len(ranks):
        raise TokenizerError(f"{path}: two tokens have the same rank")
    for byte in range(256):
        if bytes((byte,)) not in ranks:
            raise TokenizerError(
                f"{path}: no token for the byte 0x{byte:02X}: is the file complete?"
            )
    return ranks


def pattern_and_special(
    path: Path,
    text: str,
    ranks: Mapping[bytes, int],
    config: Mapping[str, Any],
    settings: Settings,
) -> tuple[str, dict[str, int]]:
    """The pattern that splits a text, and the ids of the control tokens, by their texts."""
    known = KNOWN.get(hashlib.sha256(text.encode("utf-8")).hexdigest())
    if known is not None:
        pattern, special = known
        return pattern, dict(special)
    if "qwen" in (config.get("model_type"), path.stem, settings.tokenizer_class.lower()[:4]):
        names = [END, "<|im_start|>", "<|im_end|>"]
        names += [f"<|extra_{number}|>" for number in range(205)]
        return QWEN_PATTERN, {name: len(ranks) + index for index, name in enumerate(names)}
    raise TokenizerError(
        f"{path}: {len(ranks)} ranks of an unknown model, without the pattern that splits text "
        "before merging: add its tokenizer.json"
    )


def from_gpt2_files(merges_path: Path, vocab_path: Path, settings: Settings) -> Tokenizer:
    """The tokenizer of vocab.bpe and encoder.json, or of merges.txt and vocab.json.

    A token that is neither a byte nor the product of a merge can only be a control token.

    Raises TokenizerError: a file is broken, or they are not those of a byte-level tokenizer.
    """
    vocab = read_vocab(vocab_path, {"vocab": parse_json(vocab_path, read_text(vocab_path))})
    missing = UTF8_BYTES - vocab.keys()
    if missing:
        raise TokenizerError(
            f"{vocab_path}: not a byte-level vocabulary, as it has no {min(missing)!r}: add a "
            "tokenizer.json"
        )
    merges = read_merge_lines(merges_path, vocab_path, vocab)
    products = {"".join(pair) for pair in merges}
    added_tokens = []
    for name, token_id in vocab.items():
        if name not in BYTE_OF and name not in products:
            added_tokens.append({"id": token_id, "content": name, "special": True})
    spec = {
        "version": "1.0",
        "added_tokens": added_tokens,
        "normalizer": None,
        **_splitting(merges_path, settings),
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    return from_tokenizer_json(merges_path, None, spec, settings)


def read_merge_lines(path: Path, vocab_path: Path, vocab: Mapping[str, int]) -> list[list[str]]:
    """The pairs in a file of merges. Raises TokenizerError for one that `vocab` does not have."""
    merges: list[list[str]] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise TokenizerError(f"{path}: line {number} is not a pair of tokens: {line!r:.60}")
        for name in (*pair, "".join(pair)):
            if name not in vocab:
                raise TokenizerError(
                    f"{path}: line {number} needs {name!r:.60}, not in {vocab_path.name}"
                )
        merges.append(pair)
    return merges


def _splitting(path: Path, settings: Settings) -> dict[str, Any]:
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
        split = {
            "type": "Split",
            "pattern": {"Regex": QWEN_PATTERN},
            "behavior": "Isolated",
            "invert": False,
        }
        steps = [split, {**level, "use_regex": False}]
        return {
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        }
    raise TokenizerError(
        f"{path}: minigen does not know how a {settings.tokenizer_class} splits text: add its "
        "tokenizer.json"
    )
