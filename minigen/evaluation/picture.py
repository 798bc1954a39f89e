"""How every picture looks, and how it is written. matplotlib is imported only here, and only when one is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen.errors import MinigenError
from minigen.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colors, told apart also by those who see fewer.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#555555"
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 150,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "text.parse_math": False,  # a file's name may hold a $
}


def require_matplotlib() -> None:
    """Raises MinigenError where matplotlib cannot be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MinigenError(
            'a plot needs matplotlib, which is not installed: pip install "minigen[plot]"'
        ) from None


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw into, of a size in inches: it is a PNG at `path` when the block ends well.

    The same figure is the same bytes with the same matplotlib. Raises MinigenError without matplotlib, or where the
    file cannot be written.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name in a script that the font lacks
        matplotlib.rcdefaults()  # a user's own settings must not change the picture
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with replacing(path) as beside:
            figure.savefig(beside, format="png", metadata={"Software": None})
