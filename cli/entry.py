"""Where the process begins. Until `main` can take it, Ctrl-C ends the process as it ends any other, without a word."""

import os
import signal

# Before torch is loaded: a thread that has nothing to do sleeps. One that looks for work in a loop, as is the default
# of the libraries of OpenMP, holds a core that another thread needs as soon as other programs run too: then everything
# takes ten times as long. On a quiet machine sleeping costs little, or on some virtual ones a fifth of the speed.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # any of them set: the user decides
if not any(name in os.environ for name in WAITING):
    os.environ["OMP_WAIT_POLICY"] = "passive"

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
