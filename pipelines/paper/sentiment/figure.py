"""The frontier as one SVG file: reward against KL, a color a method, bars of 95 % intervals."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from pipelines.paper.sentiment.result import Place

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 440, 60, 170, 30, 50
COLORS = {
    "dpo": "#b8860b", "best-of-n": "#555555", "unlikelihood": "#2a7f62", "preferred-ft": "#7b3f9d",
    "rloo (TRL)": "#c0392b", "ppo (TRL 1.12)": "#1f6fb2", "reference": "#000000",
}  # fmt: skip


def draw(places: Sequence[Place], title: str) -> str:
    """Return the SVG; points of one setting are joined in the order of their steps."""
    axes = _Axes(places)
    methods = list(dict.fromkeys(place.method for place in places))
    settings = dict.fromkeys((place.method, place.setting) for place in places)
    parts = [*axes.frame(title)]
    for method, setting in settings:
        line = [p for p in places if (p.method, p.setting) == (method, setting)]
        parts += axes.line(line, COLORS.get(method, "#777777"))
    best = [p for p in places if p.method == "best-of-n"]
    parts += axes.line(best, COLORS["best-of-n"]) if len(best) > 1 else []
    for at, method in enumerate(methods):
        y = TOP + 14 + 20 * at
        color = COLORS.get(method, "#777777")
        parts.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{y - 4}" r="4" fill="{color}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 30}" y="{y}">{escape(method)}</text>')
    return "\n".join(
        ["<!-- written by pipelines/paper/sentiment -->", *_open(), *parts, "</svg>", ""]
    )


def _open() -> list[str]:
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]


class _Axes:
    """Map of KL and reward to pixels."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.most_kl = max([1.0, *(place.kl + place.kl_interval for place in places)])
        rewards = [place.reward for place in places]
        self.low = min(0.4, *(rewards or [0.4]))
        self.high = max([1.0, *rewards])

    def at(self, kl: float, reward: float) -> tuple[float, float]:
        x = LEFT + max(kl, 0.0) / self.most_kl * (WIDTH - LEFT - RIGHT)
        share = (min(max(reward, self.low), self.high) - self.low) / (self.high - self.low)
        return round(x, 1), round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def frame(self, title: str) -> list[Markup | str]:
        (x0, y0), (x1, y1) = self.at(0, self.low), self.at(self.most_kl, self.high)
        parts: list[Markup | str] = [
            f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>',
            f'<path d="M{x0} {y1}V{y0}H{x1}" fill="none" stroke="#333333"/>',
            f'<text x="{(x0 + x1) / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
            "KL(policy ‖ reference) of a completion, nats</text>",
            f'<text transform="translate(16 {(y0 + y1) / 2}) rotate(-90)" text-anchor="middle">'
            "reward</text>",
        ]
        for share in (0, 0.25, 0.5, 0.75, 1):
            x, y = self.at(share * self.most_kl, self.low + share * (self.high - self.low))
            kl, reward = share * self.most_kl, self.low + share * (self.high - self.low)
            parts.append(f'<text x="{x}" y="{y0 + 16}" text-anchor="middle">{kl:.1f}</text>')
            parts.append(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{reward:.2f}</text>')
        return parts

    def line(self, places: Sequence[Place], color: str) -> list[str]:
        """Return a line through points, each with its intervals and its name."""
        path = " ".join("{},{}".format(*self.at(place.kl, place.reward)) for place in places)
        parts = [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-opacity="0.4"/>']
        for place in places:
            x, y = self.at(place.kl, place.reward)
            left, _ = self.at(place.kl - place.kl_interval, place.reward)
            right, _ = self.at(place.kl + place.kl_interval, place.reward)
            _, low = self.at(place.kl, place.reward - place.reward_interval)
            _, high = self.at(place.kl, place.reward + place.reward_interval)
            name = " ".join(filter(None, (place.method, place.setting, f"step {place.step}")))
            bars = f"M{left} {y}H{right}M{x} {low}V{high}"
            dot = f'<circle cx="{x}" cy="{y}" r="4" fill="{color}">'
            parts.append(f'<path d="{bars}" stroke="{color}" stroke-opacity="0.5"/>')
            parts.append(f"{dot}<title>{escape(name)}</title></circle>")
        return parts
