"""What the pictures share: colours, axes, labels at the ends of lines, saving.

matplotlib is used through its objects (no pyplot, no global state), and imported only when a
picture is drawn.
"""

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gradtx.demo.errors import CommandError
from gradtx.demo.extras import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinct to colour-blind readers too (after Okabe and Ito), and on white paper.
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7a4b2a", "#7f7f00"
)  # fmt: skip
INK, MUTED, FAINT = "#222222", "#6b6b6b", "#e4e4e4"
_SUFFIXES = (".png", ".pdf", ".svg")


def ready_to_draw(out: Path, *, command: str) -> None:
    """Refuse, before any work is done, a picture that could not be written."""
    load("matplotlib", command=command)
    if out.suffix.lower() not in _SUFFIXES:
        raise CommandError(f"cannot write {out}: the name must end in {', '.join(_SUFFIXES)}")
    if not out.absolute().parent.is_dir():
        raise CommandError(f"cannot write {out}: there is no folder {out.absolute().parent}")
    if out.is_dir():
        raise CommandError(f"cannot write {out}: it is a folder")
    if not os.access(out if out.exists() else out.absolute().parent, os.W_OK):
        raise CommandError(f"cannot write {out}: no permission")


def new_figure(command: str, width: float, height: float) -> "Figure":
    """An empty figure, in inches; ``command`` is named in the error if matplotlib is missing."""
    figure: Figure = load("matplotlib.figure", command=command).Figure(
        figsize=(width, height), dpi=150, layout="constrained", facecolor="white"
    )
    return figure


def save(figure: "Figure", out: Path) -> None:
    """Write the picture in the format of the suffix."""
    try:
        figure.savefig(out)
    except OSError as error:
        raise CommandError(f"cannot write {out}: {error.strerror or error}") from None


def headline(figure: "Figure", title: str, subtitle: str) -> None:
    """A title at the left, and under it in smaller type how to read the picture."""
    lines = textwrap.wrap(subtitle, int(12.5 * figure.get_figwidth()))
    # Empty lines under the title reserve room for the subtitle.
    figure.suptitle(
        title + "\n" * len(lines), x=0.01, ha="left", fontsize=15, weight="bold", color=INK
    )
    below = "\n".join(["", "", *lines])
    figure.text(0.0105, 1.0, below, va="top", fontsize=10, color=MUTED)


def quiet(axes: "Axes", title: str = "") -> None:
    """Make the axes recede behind what is drawn on them."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8, which="both")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def short(name: str, length: int = 30) -> str:
    """A name as far as a picture has room for it."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


class End(NamedTuple):
    """The last point of a line, and the name to put there."""

    name: str
    y: float
    color: str


def label_ends(axes: "Axes", ends: Sequence[End], gap: float = 0.07) -> None:
    """Name each line at the right edge; the labels are ``gap`` of the axes' height apart."""
    to_fraction = axes.transData + axes.transAxes.inverted()
    left, top = axes.get_xlim()[0], axes.get_ylim()[1]
    finite = [
        end if math.isfinite(end.y) else End(f"{end.name} (diverged)", top, end.color)
        for end in ends
    ]
    ordered = sorted(finite, key=lambda end: end.y)
    at = [float(to_fraction.transform((left, end.y))[1]) for end in ordered]
    lowest, highest = gap / 2, 1 - gap * (len(at) - 0.5)  # where the lowest label may be
    bounded = [min(max(y, lowest + gap * i), highest + gap * i) for i, y in enumerate(at)]
    for end, y, place in zip(ordered, at, _apart(bounded, gap), strict=True):
        axes.annotate(
            end.name,
            xy=(1.0, y),
            xytext=(1.045, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=end.color,
            fontsize=9,
            weight="bold",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": end.color,
                "linewidth": 0.8,
                "relpos": (0, 0.5),
                "shrinkB": 0,
            },
        )


def _apart(at: Sequence[float], gap: float) -> list[float]:
    """Move sorted heights as little as needed to put neighbours ``gap`` apart.

    Labels that touch are merged into a block, centred on the mean of their heights.
    """
    blocks: list[tuple[float, int]] = []  # (centre, labels in it)
    for y in at:
        centre, count = y, 1
        while blocks and centre - blocks[-1][0] < gap * (count + blocks[-1][1]) / 2:
            below, size = blocks.pop()
            centre = (below * size + centre * count) / (size + count)
            count += size
        blocks.append((centre, count))
    return [centre + gap * (i - (count - 1) / 2) for centre, count in blocks for i in range(count)]
