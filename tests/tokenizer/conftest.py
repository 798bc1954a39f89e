"""Tiny tokenizers made on the spot, hard texts, and the data that may lie beside the project."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"

CORPUS = [
    "One day, a dog named Max went to the park. He saw a big red ball, and the ball was the best ball.",
    "I'll say it's what they've done; I'm sure we'd do it, you're right. IT'S WHAT WE'VE DONE.",
    "The  two   spaces    and\n\nnew lines\r\n\ttabs. 1 22 333 4444 55555, 3.14 and ½ of ٣٤٥.",
    "naïve café, 東京 タワー, Привет мир, שלום עולם, مرحبا, 🙂 👩‍👩‍👧‍👦 🇫🇷 e\u0301 <|end|>",
] * 3

HARD = [
    "",
    " ",
    "a",
    "   ",
    "\n",
    " \n \n\n  x",
    "trailing  ",
    "tabs\t\t\tand\r\n\r\nlines \u00a0\u2003\u3000\x85 wide \u200b spaces",
    "don't DON'T we'LL We'Ve I'M he'D you'RE it’s ſ'ſ 'K's 's't",
    "1234567890 ١٢٣ Ⅷ ½ ² 3.14e-10",
    "naïve e\u0301 n\u0303 ﬁ ﬆ ß ŉ İi̇",
    "東京タワー 你好，世界！ 한국어",
    "👩‍👩‍👧‍👦 🙂🙃 🏳️‍🌈 🇫🇷 \U0001f9d1\U0001f3fd‍\U0001f680",
    "שלום מרחבא العربية ‮abc‬",
    "\x00\x01\x1f\x7f\x80\x9f control \ufeff bom \ufffd \uffff \U0010ffff",
    "a<|endoftext|>b <|im_start|>user\n<|im_end|> <s></s><unk> <|end|><|end|>x<0x0A>",
    "def f(x):\n    return x**2  # “quote” …\n\n\n",
    "^" * 50 + " " * 70 + "x" + "ab" * 60,
    "Ġ ▁ Ċ ĠĠ ▁▁x",
]


@pytest.fixture(scope="session")
def corpus():
    return CORPUS


@pytest.fixture(scope="session")
def hard():
    return HARD


@pytest.fixture(scope="session")
def shared():
    """A path in the data beside the project; skips the test where it is not there."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs ../shared/{name}, which is not part of the project")
        return path

    return find


def train(model, trainer, **parts):
    tokenizer = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def byte_level_spec():
    """The content of a tokenizer.json as GPT-2's, with 300 merges and two control tokens."""
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<|end|>", "<|end|><|end|>"],
    )
    tokenizer = train(
        models.BPE(),
        trainer,
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoder=decoders.ByteLevel(),
    )
    return json.loads(tokenizer.to_str())


@pytest.fixture(scope="session")
def llama_spec():
    """The content of a tokenizer.json as Llama's: byte fallback, a space in front, <s> before every text."""
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        limit_alphabet=60,
        show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>", *alphabet],
    )
    tokenizer = train(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        trainer,
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]  # bytes are tokens of the model, not added ones
    return spec


@pytest.fixture(scope="session")
def wordpiece_spec():
    """A decoder whose tokens have no bytes of their own."""
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, show_progress=False, special_tokens=["[UNK]", "[CLS]"]
    )
    tokenizer = train(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        pre_tokenizer=pre_tokenizers.Whitespace(),
        decoder=decoders.WordPiece(),
    )
    return json.loads(tokenizer.to_str())


@pytest.fixture(scope="session")
def metaspace_spec():
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=["<s>"])
    tokenizer = train(
        models.BPE(),
        trainer,
        pre_tokenizer=pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
    )
    return json.loads(tokenizer.to_str())


@pytest.fixture
def folder(tmp_path):
    """Writes files, given by keyword ("tokenizer_json" is tokenizer.json), and gives their folder."""

    def write(**files):
        for key, content in files.items():
            name = ".".join(key.rsplit("_", 1))
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        return tmp_path

    return write
