"""Training data: from files to documents, to tokens on disk, to batches.

dataset = prepare(["stories/", "chats.jsonl"], tokenizer, folder)
batches = Batches(dataset.train, batch=12, context=64, seed=0)
batches.batch(step)
for batch in validation(dataset.valid, 12, 64): ...
"""

from minigen.training.data.answers import ChatRenderer
from minigen.training.data.batches import Batches, Mode, Validation, choose_mode, validation
from minigen.training.data.dataset import Dataset, default_cache, prepare
from minigen.training.data.identity import open_tokenizer
from minigen.training.data.sources import DataError, find_files
from minigen.training.data.tokens import Tokens

__all__ = [
    "Batches",
    "ChatRenderer",
    "DataError",
    "Dataset",
    "Mode",
    "Tokens",
    "Validation",
    "choose_mode",
    "default_cache",
    "find_files",
    "open_tokenizer",
    "prepare",
    "validation",
]
