"""HTML and SVG elements out of Python: every text is made plain, then escaped."""

from collections.abc import Iterable

from markupsafe import Markup, escape

from prefdata.report.safe import plain


def shown(text: str) -> Markup:
    r"""A text of unknown origin, harmless: its control characters written out, its markup escaped.

    >>> str(shown("<b>\x1b[0m"))
    '&lt;b&gt;\\x1b[0m'
    """
    return text if isinstance(text, Markup) else escape(plain(text, lines=True))


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element; `class_` is class, `text_anchor` text-anchor; an attribute of None is left out.

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
    """The parts one after the other, each escaped unless it is markup."""
    return Markup("").join(shown(part) for part in parts)


def picture(
    title: str, meaning: str, *children: str, size: tuple[float, float], class_: str = "plot"
) -> Markup:
    """An SVG with a name and a description for those who hear it; `size` is (width, height)."""
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
