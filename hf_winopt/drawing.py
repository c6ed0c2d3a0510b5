"""How pictures look here: one style, colours that colour-blind readers can tell apart, files written whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_winopt.files import write_atomically

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")

_STYLE: Any = {  # matplotlib types the keys one by one
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def colour(index: int) -> str:
    """The colour of the `index`-th line; they come again after eight."""
    return COLOURS[index % len(COLOURS)]


@contextmanager
def picture(path: Path, title: str, size: tuple[float, float]) -> Iterator[Any]:
    """A matplotlib `Figure` to draw on, `size` in inches, written to `path` as PNG once that is done."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # draws without pyplot, hence without a screen or a chosen backend

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150)
    write_atomically(path, image.getvalue())
