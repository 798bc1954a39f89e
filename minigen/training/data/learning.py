"""Learns byte-level BPE with the tokenizers library, in a thread that Ctrl-C can abandon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from minigen.tokenizer.base import library_errors

if TYPE_CHECKING:
    import tokenizers

LEAST_FREQUENCY = 2  # of a pair that is merged
LONGEST_WORD = 1000  # bytes of a word; longer ones are split
POLL = 0.1  # seconds between two looks at the thread
PATIENCE = 0.5  # seconds that the thread has to end after Ctrl-C
MERGING = "merging tokens"  # the phase after all texts are read
THREAD = "minigen learns merges"  # name of the thread


def learn_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special: Sequence[str],
    merging: Callable[[], None] = lambda: None,
) -> tokenizers.Tokenizer:
    """Learns a tokenizer. Its ids are special tokens, then bytes, then merges in order.

    Words, by GPT-2's pattern, that are longer than LONGEST_WORD are split: the library's time for a
    word grows with the square of its length. `merging` is called from time to time once all texts
    are read. A KeyboardInterrupt takes effect at once, although the library may continue until the
    process ends.

    Raises TokenizerError if the library cannot learn from the texts, and what `texts` raises.
    """
    import tokenizers
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Of a word, in which each byte is a character.
    pieces = pre_tokenizers.Split(Regex(f".{{{LONGEST_WORD}}}"), "isolated")
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=LEAST_FREQUENCY,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    run_interruptibly(lambda taken: library.train_from_iterator(taken, trainer), texts, merging)
    library.pre_tokenizer = words  # encoding does not split long words
    return library


def run_interruptibly(
    learn: Callable[[Iterator[str]], None], texts: Iterable[str], merging: Callable[[], None]
) -> None:
    """Calls `learn` with the texts in a thread, and waits for it here, where Ctrl-C has an effect.

    The library ignores signals until it is done, and replaces exceptions of the texts by its own.
    """
    problems: list[BaseException] = []
    abandoned = threading.Event()
    all_read = threading.Event()
    done = threading.Event()

    def watched_texts() -> Iterator[str]:
        try:
            for text in texts:
                if abandoned.is_set():
                    raise InterruptedError
                yield text
        except Exception as error:
            problems.append(error)
            raise
        all_read.set()

    def work() -> None:
        try:
            with library_errors("the tokenizers library cannot learn from these texts"):
                learn(watched_texts())
        except BaseException as error:
            problems.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name=THREAD, daemon=True).start()
    try:
        while not done.wait(
            POLL
        ):  # Thread.join would take an interrupted thread for a finished one
            if all_read.is_set():
                merging()
    except BaseException:
        abandoned.set()
        done.wait(PATIENCE)
        raise
    if problems:
        raise problems[0] from None  # the first one, which the texts may have raised


def still_learning() -> bool:
    """Whether an abandoned thread still runs; only the end of the process stops it."""
    return any(thread.name == THREAD for thread in threading.enumerate())
