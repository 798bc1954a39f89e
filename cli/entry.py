"""Where the process begins. Until `main` can take it, Ctrl-C ends the process as it ends any other, without a word."""

import os
import signal

# Before torch is loaded: how long a thread looks for work in a loop before it sleeps. The default of the libraries of
# OpenMP is long: it holds a core that another thread needs as soon as other programs run too, and then everything takes
# up to ten times as long. To sleep at once costs up to half of the speed, for waking takes time: see
# bench/results/busy.md.
WAITING = {
    "GOMP_SPINCOUNT": "5000",  # turns of GNU's loop: 0.1 to 0.3 ms, by the processor
    "KMP_BLOCKTIME": "1",  # milliseconds of LLVM's, which macOS has
}
if not any(name in os.environ for name in (*WAITING, "OMP_WAIT_POLICY")):  # any of them set: the user decides
    os.environ.update(WAITING)

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
