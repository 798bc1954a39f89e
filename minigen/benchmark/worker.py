"""A session in a process of its own, so that models share neither memory nor threads."""

from __future__ import annotations

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from minigen.benchmark.session import Subject
from minigen.errors import MinigenError


class Worker:
    """Runs one request at a time, and idles between them."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        context = get_context("spawn")  # a fork would break threads and GPU contexts
        self.pipe, other_end = context.Pipe()
        self.process = context.Process(target=serve, args=(other_end, subject), daemon=True)
        self.process.start()
        other_end.close()

    def ask(self, method: str, *args: Any) -> Any:
        """Calls a method of the session and returns its result.

        Raises what the method raises, and MinigenError if the process died.
        """
        try:
            self.pipe.send((method, args))
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            end = f"ended with code {self.process.exitcode}"
            if self.process.exitcode == -signal.SIGKILL:
                end = "was killed, probably because memory ran out"
            raise MinigenError(
                f"the process that measured {self.subject.model} on {self.subject.backend} {end}"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def serve(pipe: Connection, subject: Subject) -> None:
    """The process: answers requests until it is killed. Only the asking process handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session = subject.session()
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            answer = getattr(session, method)(*args)
        except (MinigenError, MemoryError) as error:
            answer = error
        except RuntimeError as error:  # a framework's own class may fail to be pickled
            answer = RuntimeError(str(error))
        pipe.send(answer)
