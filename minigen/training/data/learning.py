"""Byte-level BPE, learned from texts by the tokenizers library, in a thread that Ctrl-C can leave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from minigen.tokenizer.base import library_errors

if TYPE_CHECKING:
    import tokenizers

SEEN_TWICE = 2  # a pair that stands only once teaches nothing and is not merged
LONGEST_WORD = 1000  # bytes of a word that are learned from at once
LOOK = 0.1  # seconds between two looks at the thread that learns
PATIENCE = 0.5  # seconds that it has to end where it can
MERGING = "merging tokens"  # what it does when all texts are read, in words
THREAD = "minigen learns merges"  # its name


def learn_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special: Sequence[str],
    merging: Callable[[], None] = lambda: None,
) -> tokenizers.Tokenizer:
    """The library's tokenizer. Special tokens have the lowest ids, then come the bytes, then the merges in order.

    A word of the text (GPT-2's pattern says what that is) counts as several where it is longer than LONGEST_WORD: the
    library's time for a word grows with the square of its length. `merging` is called once in a while after the last
    text was taken. A KeyboardInterrupt comes through at once, though the library may go on until the process ends.

    Raises TokenizerError where the library cannot learn from the texts, and whatever `texts` raises.
    """
    import tokenizers
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = pre_tokenizers.Split(
        Regex(f".{{{LONGEST_WORD}}}"), "isolated"
    )  # of a word, a character each byte
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=SEEN_TWICE,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    run_interruptibly(lambda taken: library.train_from_iterator(taken, trainer), texts, merging)
    library.pre_tokenizer = words  # a text that is encoded has whole words
    return library


def run_interruptibly(
    learn: Callable[[Iterator[str]], None], texts: Iterable[str], merging: Callable[[], None]
) -> None:
    """Calls `learn` with the texts in a thread and waits for it here, where Ctrl-C is heard.

    The library itself looks at no signal until it is done; of what the texts raise it makes an exception of its own.
    """
    problems: list[BaseException] = []
    left, exhausted, done = threading.Event(), threading.Event(), threading.Event()

    def taken() -> Iterator[str]:
        try:
            for text in texts:
                if left.is_set():
                    raise InterruptedError
                yield text
        except Exception as error:
            problems.append(error)
            raise
        exhausted.set()

    def work() -> None:
        try:
            with library_errors("the tokenizers library cannot learn from these texts"):
                learn(taken())
        except BaseException as error:
            problems.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name=THREAD, daemon=True).start()
    try:
        while not done.wait(
            LOOK
        ):  # Thread.join, where Ctrl-C breaks it off, takes the thread for ended
            if exhausted.is_set():
                merging()
    except BaseException:
        left.set()
        done.wait(PATIENCE)
        raise
    if problems:
        raise problems[0] from None  # the first is what the texts raised, where they did


def still_learning() -> bool:
    """Whether a thread that was left is still at work: only the end of the process stops it."""
    return any(thread.name == THREAD for thread in threading.enumerate())
