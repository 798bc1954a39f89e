"""A session in a process of its own: its memory is its own, and no framework's threads are in another's way."""

from __future__ import annotations

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from minigen.benchmark.session import Subject
from minigen.errors import MinigenError


class Worker:
    """Does one thing at a time, when asked; while others are asked, it waits."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        context = get_context(
            "spawn"
        )  # a fork would share threads and GPU contexts that do not bear it
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, subject), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, what: str, *args: Any) -> Any:
        """What the session's method of that name returns. Raises what it raises, and MinigenError where it died."""
        try:
            self.pipe.send((what, args))
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            killed = code == -signal.SIGKILL
            raise MinigenError(
                f"the process that measured {self.subject.model} on {self.subject.backend} "
                + (
                    "was killed, as the system does when memory runs out"
                    if killed
                    else f"ended with code {code}"
                )
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection, subject: Subject) -> None:
    """The process: answers until it is killed. Ctrl-C is for the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session = subject.session()
    while True:
        try:
            what, args = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(session, what)(*args)
        except (MinigenError, MemoryError) as error:
            answer = error
        except RuntimeError as error:  # a framework's own may not survive the way
            answer = RuntimeError(str(error))
        pipe.send(answer)
