"""HTML and SVG elements from Python; in every text, control characters and markup are escaped."""

from collections.abc import Iterable

from markupsafe import Markup, escape

from prefdata.report.safe import plain


def shown(text: str) -> Markup:
    r"""Return a text of unknown origin with control characters and markup escaped.

    >>> str(shown("<b>\x1b[0m"))
    '&lt;b&gt;\\x1b[0m'
    """
    return text if isinstance(text, Markup) else escape(plain(text, lines=True))


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element; `class_` is class, `text_anchor` text-anchor; None omits an attribute.

    >>> tag("text", "a < b", x=1.50, class_="soft")
    Markup('<text x="1.5" class="soft">a &lt; b</text>')
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{shown(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    return Markup(f"<{name}{''.join(parts)}>{join(children)}</{name}>")  # every part is escaped


def join(parts: Iterable[str]) -> Markup:
    """Concatenate the parts, each escaped unless it is markup."""
    return Markup("").join(shown(part) for part in parts)


def picture(
    title: str, meaning: str, *children: str, size: tuple[float, float], class_: str = "plot"
) -> Markup:
    """Return an SVG with name and description for screen readers; `size` is (width, height)."""
    width, height = size
    return tag(
        "svg",
        tag("title", title),
        tag("desc", meaning),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_=class_,
    )


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"
