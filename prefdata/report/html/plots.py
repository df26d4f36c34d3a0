"""Small SVG plots of a report: lengths on a log2 axis, intervals, shares."""

import math
from collections.abc import Mapping
from itertools import pairwise

from markupsafe import Markup

from prefdata.report.html.markup import join, picture, tag
from prefdata.report.model import Bias, Histogram

WIDTH, HEIGHT = 400, 172
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 10, 26
_TICK_ROOM = 30  # least distance between two ticks of an axis


def draw_lengths(shapes: Mapping[str, Histogram], unit: str) -> Markup:
    """Draw histograms in one plot: the first filled, the next as a line.

    The axis is log2 and areas are shares of pairs, so a bin's height is its count divided by its
    width in doublings.
    """
    low = min(shape.edges[0] for shape in shapes.values())
    high = max(shape.edges[-1] for shape in shapes.values())
    tallest = max(density for shape in shapes.values() for density in _densities(shape))
    parts = [_axis(low, high)]
    for number, (name, shape) in enumerate(shapes.items()):
        path = _outline(shape, (low, high), tallest or 1)
        kind = "shape line" if number else "shape"
        parts.append(tag("path", tag("title", name), class_=kind, d=path))
    names = " and ".join(shapes)
    meaning = f"Lengths of {names}, from {low:,} to {high - 1:,} {unit}, on a doubling axis."
    return picture(f"Lengths of {names}", meaning, *parts, size=(WIDTH, HEIGHT))


def _place(length: float, ends: tuple[int, int]) -> float:
    """Return the x of a length: equal distances for equal factors; 0 is half a doubling below 1."""
    low, high = (_octaves(end) for end in ends)
    across = (_octaves(length) - low) / ((high - low) or 1)
    return _LEFT + across * (WIDTH - _LEFT - _RIGHT)


def _octaves(length: float) -> float:
    return math.log2(length) if length >= 1 else -0.5


def _densities(shape: Histogram) -> list[float]:
    return [
        count / (_octaves(high) - _octaves(low))
        for (low, high), count in zip(pairwise(shape.edges), shape.counts, strict=True)
    ]


def _outline(shape: Histogram, ends: tuple[int, int], tallest: float) -> str:
    """Return the steps of a histogram as a path that begins and ends on the axis."""
    base = HEIGHT - _BOTTOM
    parts = [f"M{_place(shape.edges[0], ends):.1f} {base}"]
    for high, density in zip(shape.edges[1:], _densities(shape), strict=True):
        top = base - density / tallest * (base - _TOP)
        parts.append(f"V{top:.1f}H{_place(high, ends):.1f}")
    return "".join([*parts, f"V{base}"])


def _axis(low: int, high: int) -> Markup:
    """Draw the axis with ticks at powers of two, as many as fit."""
    base, ends = HEIGHT - _BOTTOM, (low, high)
    parts = [tag("line", class_="axis", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base)]
    powers = [2**k for k in range(31) if low <= 2**k <= high]
    marks = [low, high] if len(powers) < 2 else powers
    right = WIDTH - _RIGHT
    last = -math.inf
    for mark in marks:
        x = _place(mark, ends)
        if x - last < _TICK_ROOM or (last > 0 and right - x < _TICK_ROOM / 3):
            continue
        last = x
        parts.append(tag("line", class_="axis", x1=x, x2=x, y1=base, y2=base + 4))
        parts.append(tag("text", f"{mark:,}", class_="tick", x=x, y=base + 18))
    return join(parts)


def reach_of(biases: list[Bias]) -> float:
    """Return how far the shared axis of the intervals extends from 0.5, rounded up to a tenth.

    >>> reach_of([])
    0.1
    """
    far = [abs(end - 0.5) for bias in biases for end in (bias.low, bias.high, bias.auc)]
    return min(0.5, max(0.1, math.ceil(max(far, default=0.1) * 10 - 1e-9) / 10))


def draw_interval(bias: Bias, reach: float) -> Markup:
    """Draw an AUC and its interval on an axis with 0.5 (no information) in the middle."""
    width, middle = 240, 13

    def at(value: float) -> float:
        return width / 2 + (value - 0.5) / reach * (width / 2 - 8)

    clear = not bias.low <= 0.5 <= bias.high
    parts = [
        tag("line", class_="axis", x1=8, x2=width - 8, y1=middle, y2=middle),
        tag("line", class_="zero", x1=width / 2, x2=width / 2, y1=2, y2=24),
        *(
            tag("line", class_="cap", x1=at(end), x2=at(end), y1=middle - 5, y2=middle + 5)
            for end in (bias.low, bias.high)
        ),
        tag("line", class_="whisker", x1=at(bias.low), x2=at(bias.high), y1=middle, y2=middle),
        tag("circle", class_="dot clear" if clear else "dot", cx=at(bias.auc), cy=middle, r=4),
        tag("text", f"{0.5 - reach:g}", class_="low", x=8, y=38),
        tag("text", "0.5", class_="tick", x=width / 2, y=38),
        tag("text", f"{0.5 + reach:g}", class_="high", x=width - 8, y=38),
    ]
    meaning = f"AUC {bias.auc:.3f}, 95 % interval {bias.low:.3f} to {bias.high:.3f}."
    return picture(bias.name, meaning, *parts, size=(width, 42), class_="interval")


def draw_share(share: float) -> Markup:
    """Draw a bar for a share; its number is next to it, so it needs no description."""
    bar = tag("rect", class_="part", width=max(share * 100, 0.6 if share else 0), height=6)
    whole = tag("rect", class_="whole", width=100, height=6)
    return tag(
        "svg",
        whole,
        bar,
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        class_="share",
        aria_hidden="true",
    )
