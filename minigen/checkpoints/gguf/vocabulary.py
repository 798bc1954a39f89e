"""The tokenizer of a GGUF file as the files that the hub has: tokenizer.json, its settings, and what ends a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minigen.checkpoints.gguf.header import Header
from minigen.checkpoints.gguf.patterns import IGNORE_MERGES, PATTERNS
from minigen.errors import CheckpointError, shown

START = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"  # SentencePiece's sign for one
# How a control token that ends a turn is called, where the file does not say which one does.
ENDS_OF_TURN = (
    "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<EOT>", "_<EOT>", "<|end_of_text|>",
    "<|eom_id|>", "<|return|>", "<|call|>", "</s>",
)  # fmt: skip
NAMES = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
         "pad_token": "padding_token_id"}  # fmt: skip


class Vocabulary:
    """The tokens of a file: texts, kinds and scores, checked. Raises CheckpointError where they contradict."""

    def __init__(self, header: Header) -> None:
        self.header, metadata = header, header.metadata
        self.values = {key.removeprefix(START): x for key, x in metadata.items() if key.startswith(START)}
        self.tokens: list[str] = self.strings("tokens")
        self.kinds: list[int] = self.values.get("token_type") or [NORMAL] * len(self.tokens)
        if len(self.kinds) != len(self.tokens):
            raise self.fail("token_type", f"there are {len(self.tokens)} tokens")
        if len(set(self.tokens)) < len(self.tokens):
            self.tokens = without_copies(self.tokens)

    def fail(self, key: str, what: str) -> CheckpointError:
        value = shown(self.values.get(key), 60)
        return CheckpointError(f"{self.header.path}: {START}{key} is {value}: {what}")

    def strings(self, key: str) -> list[str]:
        found = self.values.get(key)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise self.fail(key, "it must be a list of texts")
        return found

    def of_kind(self, *kinds: int) -> list[int]:
        return [i for i, kind in enumerate(self.kinds) if kind in kinds]

    def token(self, key: str) -> str | None:
        """The text of the token whose id is under a key."""
        number = self.values.get(key)
        if isinstance(number, int) and 0 <= number < len(self.tokens):
            return self.tokens[number]
        return None

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "it must be true or false")
        return value

    def added_tokens(self) -> list[dict[str, Any]]:
        """Control tokens, which no text of a user's becomes, and those that count as one piece wherever they stand."""
        return [
            {
                "id": i, "content": self.tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": self.kinds[i] != USER_DEFINED,
            }
            for i in self.of_kind(CONTROL, USER_DEFINED, UNKNOWN)
            if self.tokens[i]
        ]  # fmt: skip

    def ends(self) -> list[int]:
        """The ids that end an answer: eos, and the ends of a turn and of a message, named or known by their text."""
        named = [self.values.get(f"{name}_token_id") for name in ("eos", "eot", "eom")]
        ends = [token for token in named if isinstance(token, int) and 0 <= token < len(self.tokens)]
        controls = {self.tokens[i]: i for i in self.of_kind(CONTROL, USER_DEFINED)}
        ends += [controls[name] for name in ENDS_OF_TURN[:5] if name in controls]
        return list(dict.fromkeys(ends))


def without_copies(tokens: Sequence[str]) -> list[str]:
    """Tokens whose text is there before get one of their own, which no text has: a vocabulary has no two ids for one."""
    seen: set[str] = set()
    unique = []
    for i, token in enumerate(tokens):
        unique.append(f"[copy {i}]" if token in seen else token)
        seen.add(token)
    return unique


def tokenizer_files(header: Header) -> dict[str, Any]:
    """tokenizer.json, tokenizer_config.json and generation_config.json; nothing for a file without a vocabulary.

    Raises CheckpointError for a tokenizer that minigen does not know, and for one that contradicts itself.
    """
    model = header.metadata.get(f"{START}model")
    if model in (None, "none", "no_vocab"):
        return {}
    vocabulary = Vocabulary(header)
    if model not in KINDS:
        raise vocabulary.fail("model", f"minigen reads {' and '.join(map(repr, KINDS))}")
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added_tokens(),
        **KINDS[model](vocabulary),
    }
    settings: dict[str, Any] = {}
    for name, key in NAMES.items():
        text = vocabulary.token(key)
        if text is not None:
            settings[name] = text
    settings["add_bos_token"] = vocabulary.flag("add_bos_token", model == "llama")
    settings |= templates(header.metadata)
    generation = {"eos_token_id": vocabulary.ends()}
    return {"tokenizer.json": spec, "tokenizer_config.json": settings, "generation_config.json": generation}


def templates(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The chat template, or several by name, as tokenizer_config.json has them."""
    start = "tokenizer.chat_template"
    default = metadata.get(start)
    named = {key.removeprefix(f"{start}."): x for key, x in metadata.items() if key.startswith(f"{start}.")}
    if named and default is not None:
        every = {"default": default, **named}
        return {"chat_template": [{"name": name, "template": text} for name, text in every.items()]}
    return {} if default is None else {"chat_template": default}


def byte_level(vocabulary: Vocabulary) -> dict[str, Any]:
    """GPT-2's kind: pieces of a text by a pattern, their bytes as letters, pairs merged in a given order."""
    kind = vocabulary.values.get("pre", "default")
    if kind not in PATTERNS:
        raise vocabulary.fail("pre", f"minigen knows {', '.join(PATTERNS)}")
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in PATTERNS[kind]
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": kind in IGNORE_MERGES,
            "vocab": {token: i for i, token in enumerate(vocabulary.tokens)},
            "merges": vocabulary.strings("merges"),
        },
    }  # fmt: skip


def sentence_pieces(vocabulary: Vocabulary) -> dict[str, Any]:
    """SentencePiece's BPE: of all pairs that are a token the one with the best score is merged, the leftmost first;
    what is no token becomes bytes."""
    scores = vocabulary.values.get("scores")
    if not isinstance(scores, list) or len(scores) != len(vocabulary.tokens):
        raise vocabulary.fail("scores", f"there are {len(vocabulary.tokens)} tokens")
    normal = {vocabulary.tokens[i]: i for i in vocabulary.of_kind(NORMAL, USER_DEFINED)}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if vocabulary.flag("add_space_prefix", True) else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prepend else []
    unknown = vocabulary.of_kind(UNKNOWN)
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": vocabulary.tokens[unknown[0]] if unknown else None,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(vocabulary.tokens)},
            "merges": merges_by_score(normal, scores),
        },
    }  # fmt: skip


def merges_by_score(ids: Mapping[str, int], scores: Sequence[float]) -> list[list[str]]:
    """Every pair of tokens that makes a token, the best score of that first."""
    pairs = []
    for token, number in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                pairs.append((-scores[number], ids[left], ids[right], left, right))
    pairs.sort()
    return [[left, right] for _, _, _, left, right in pairs]


KINDS = {"gpt2": byte_level, "llama": sentence_pieces}
