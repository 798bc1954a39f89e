"""Where the process begins. Until `main` can handle it, Ctrl-C kills the process silently."""

import os
import signal

# Set before torch is loaded: how long an idle thread of OpenMP polls for work before it sleeps. The
# default is long. As soon as other programs run too, the polling thread holds a core that a working
# thread needs, and everything takes up to ten times as long. Sleeping at once costs up to half of
# the speed, because waking up takes time: see bench/results/busy.md.
WAITING = {
    "GOMP_SPINCOUNT": "5000",  # iterations of GNU's loop: 0.1 to 0.3 ms, depending on the processor
    "KMP_BLOCKTIME": "1",  # milliseconds, for LLVM's library, which macOS uses
}
if os.environ.keys().isdisjoint((*WAITING, "OMP_WAIT_POLICY")):  # else the user has decided
    os.environ.update(WAITING)

# Not if the process was started with Ctrl-C ignored.
HANDLES_CTRL_C = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if HANDLES_CTRL_C:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:  # closed by the parent: no file of ours may get its number
            os.open(os.devnull, os.O_RDWR)

    from .main import main as run

    if HANDLES_CTRL_C:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()
