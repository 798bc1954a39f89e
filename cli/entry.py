"""Where the process begins. Until `main` can take it, Ctrl-C ends the process as it ends any other, without a word."""

import os
import signal

LISTENS = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is to be ignored
if LISTENS:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:  # closed by whoever started us: no file may take its number
            os.open(os.devnull, os.O_RDWR)

    from .main import main as run

    if LISTENS:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()
