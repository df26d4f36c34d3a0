"""Small line and bar plots as SVG text, colored only by the page's CSS classes.

Also the smoothed curves of a training run, from the lines of its `metrics.jsonl`.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

SMOOTH = 5  # steps in a moving mean; a step has few pairs
WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 12, 30


_FROM_ZERO = ("Gradient norm, before clipping", "Learning rate", "Tokens per second")


class Series(NamedTuple):
    """One curve: `kind` is the CSS class that colors it; `dots` draws points, not a line."""

    label: str
    kind: str
    points: list[tuple[float, float]]
    dots: bool = False


class Figure(NamedTuple):
    """One plot with its title and legend."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]]
    """(CSS class, label)"""


Line = Mapping[str, float]


def run_figures(lines: Sequence[Line], *, chosen: str, rejected: str) -> list[Figure]:
    """Return a run's figures; `chosen` and `rejected` are CSS classes. Dots are held-out pairs."""

    def curve(name: str, label: str, kind: str) -> list[Series]:
        seen, dots = values_of(lines, name), values_of(lines, f"eval/{name}")
        return [
            Series(label, kind, smooth(seen)),
            Series(f"{label}, held out", kind, dots, dots=True),
        ]

    def both(name: str) -> list[Series]:
        return [
            *curve(f"{name}/chosen", "chosen", chosen),
            *curve(f"{name}/rejected", "rejected", rejected),
        ]

    plots = {
        "Loss": curve("loss", "loss", chosen),
        "Rewards": both("rewards"),
        "Log-probs of completions, nats": both("logps"),
        "Log-ratios to the reference, nats": both("logratios"),
        "Reward margin": curve("rewards/margins", "margin", chosen),
        "Reward accuracy": curve("rewards/accuracies", "accuracy", chosen),
        "Gradient norm, before clipping": curve("grad_norm", "norm", chosen),
        "Learning rate": curve("learning_rate", "rate", chosen),
        "Tokens per second": curve("tokens_per_second", "speed", chosen),
    }
    figures = []
    for title, series in plots.items():
        if drawn := [one for one in series if one.points]:
            legend = [(f"{one.kind} {'dot' if one.dots else 'line'}", one.label) for one in drawn]
            plot = line_plot(title, drawn, from_zero=title in _FROM_ZERO)
            figures.append(Figure(title, plot, legend))
    return figures


def values_of(lines: Sequence[Line], name: str) -> list[tuple[float, float]]:
    """Return step and value of a metric in the lines that have it, where it is finite."""
    some = [(line["step"], line[name]) for line in lines if name in line]
    return [(step, value) for step, value in some if math.isfinite(value)]


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the moving mean over the last SMOOTH steps.

    >>> smooth([(1, 2.0), (2, 4.0)])
    [(1, 2.0), (2, 3.0)]
    """
    values = [value for _, value in points]
    return [
        (step, statistics.mean(values[max(0, at + 1 - SMOOTH) : at + 1]))
        for at, (step, _) in enumerate(points)
    ]


class _Frame(NamedTuple):
    """Ranges of a plot; x and y are values, not pixels."""

    x0: float
    x1: float
    y0: float
    y1: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x0) / ((self.x1 - self.x0) or 1)
        up = (y - self.y0) / ((self.y1 - self.y0) or 1)
        left = LEFT + across * (WIDTH - LEFT - RIGHT)
        return round(left, 1), round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1)


def line_plot(
    title: str, series: Sequence[Series], *, x_label: str = "step", from_zero: bool = False
) -> Markup:
    """Draw curves over one x axis; the y axis begins and ends at round numbers."""
    xs = [x for one in series for x, _ in one.points]
    marks = ticks([*([0.0] if from_zero else []), *(y for one in series for _, y in one.points)])
    frame = _Frame(min(xs), max(xs), marks[0], marks[-1])
    parts = [_grid(frame, marks, x_label)]
    parts += [_curve(frame, one) for one in series]
    return _svg(title, parts)


def histogram(
    title: str, groups: Sequence[tuple[str, str, list[float]]], *, bins: int, x_label: str
) -> Markup:
    """Draw grouped bars of values in [0, 1]; a group is (label, CSS class, values)."""
    counts = [Counter(min(int(v * bins), bins - 1) for v in values) for _, _, values in groups]
    marks = ticks([0, *(found[at] for found in counts for at in range(bins))])
    frame = _Frame(0, 1, marks[0], marks[-1])
    parts = [_grid(frame, marks, x_label)]
    width = 1 / bins / len(groups)
    for place, (_, kind, _) in enumerate(groups):
        for at in range(bins):
            x, y = frame.at(at / bins + place * width, counts[place][at])
            right, bottom = frame.at(at / bins + (place + 1) * width, 0)
            size = f'width="{max(right - x - 1, 1):.1f}" height="{bottom - y:.1f}"'
            parts.append(f'<rect class="bar {kind}" x="{x}" y="{y}" {size}/>')
    return _svg(title, parts)


def ticks(values: Sequence[float]) -> list[float]:
    """Return evenly spaced round numbers from below the least to above the greatest value.

    >>> ticks([0.12, 0.97])
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    low, high = min(values), max(values)
    rough = (high - low) / 4 or abs(high) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.10g}") for n in range(first, max(last, first + 1) + 1)]


def tick_text(value: float) -> str:
    """Return the shortest form of a round number, so that it fits left of the axis.

    >>> tick_text(2e-07), tick_text(1_500_000), tick_text(0.25)
    ('2e-7', '1.5e6', '0.25')
    """
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")


def _grid(frame: _Frame, marks: Sequence[float], x_label: str) -> str:
    """Draw a horizontal line with its value at every mark, and the ends of the x axis."""
    parts = []
    for value in marks:
        _, y = frame.at(frame.x0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="high" x="{LEFT - 6}" y="{y + 3.5}">{tick_text(value)}</text>')
    below = HEIGHT - 12
    parts.append(f'<text class="low" x="{LEFT}" y="{below}">{frame.x0:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="middle" x="{middle}" y="{below}">{escape(x_label)}</text>')
    parts.append(f'<text class="high" x="{WIDTH - RIGHT}" y="{below}">{frame.x1:g}</text>')
    return "".join(parts)


def _curve(frame: _Frame, series: Series) -> str:
    places = [frame.at(x, y) for x, y in series.points]
    if series.dots:
        dots = (f'<circle class="dot {series.kind}" cx="{x}" cy="{y}" r="4"/>' for x, y in places)
        return "".join(dots)
    points = " ".join(f"{x},{y}" for x, y in places)
    return f'<polyline class="line {series.kind}" points="{points}"/>'


def _svg(title: str, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")  # numbers and escaped text only
