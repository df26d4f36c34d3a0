"""Static pages: all text from data is escaped, and nothing is requested or run."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from prefdata.report.html.browser import leaf_of
from prefdata.report.html.findings import Link, Row, Turn
from prefdata.report.html.page import render, render_report
from prefdata.report.listing import Listing
from prefdata.report.model import Report
from prefdata.report.rows import ShownPair
from tests.prefdata.report.payloads import HARMFUL, XSS, naughty_strings
from tests.prefdata.report.synthetic import (
    empty_report,
    excerpts,
    findings,
    full_report,
    shown_pair,
)

ALL = [*XSS, *naughty_strings()]
SECTIONS = [
    "reading",
    "lines",
    "findings",
    "lengths",
    "biases",
    "sources",
    "splits",
    "pairs",
    "inputs",
]


class Skeleton(HTMLParser):
    """Skeleton of a page without its texts: tags, and attributes that do not come from data."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.tags.append(("!--", (data,)))

    def handle_decl(self, decl: str) -> None:
        self.tags.append(("!", (decl,)))

    def unknown_decl(self, data: str) -> None:
        self.tags.append(("![", (data,)))


def decode_bytes(ids: tuple[int, ...]) -> str:
    return bytes(ids).decode("utf-8", "replace")


PAGING = {"pages": ["index.html"], "page": 0, "sort": "spread", "links": [], "jumps": []}


def pairs_page(pairs: list[ShownPair]) -> str:
    """Return a page of pairs; tokens are the bytes of their text."""
    leaves = [leaf_of(pair, decode_bytes, {}) for pair in pairs]
    values = {"build": "out", "leaves": leaves, "total": 9, "shown": len(pairs)}
    return render("pairs.html.jinja", {**values, **PAGING}, tool_version="0.1.0")


def listed_row(text: str) -> Row:
    """Return a row of a page of rows, with the text in every field."""
    turns = [Turn("user" + text, [(text, True), (text, False)])]
    parts = [(part, turns) for part in ("prompt", "chosen", "rejected")]
    row = Row("rows.jsonl:1" + text, "PD202", "said" + text, parts, ())
    return row._replace(others=[row, Row("rows.jsonl:2", "PD202", text, [], excerpts(text))])


LINKS = [Link("code-PD202.html", "PD202", "blank completion", 2)]


def findings_page(text: str) -> str:
    """Return a page of a finding with one cluster."""
    listing = Listing("near-duplicate", 9, iter(()))
    values = {
        "build": "out" + text, "finding": findings(text)[0], "listing": listing, "shown": 2,
        "rows": [listed_row(text)], "links": LINKS, "clustered": True,
    }  # fmt: skip
    return render("findings.html.jinja", values, tool_version="0.1.0")


def refused_page(text: str) -> str:
    """Return a page of refused rows."""
    values = {
        "build": "out" + text, "rows": [listed_row(text), *listed_row(text).others], "total": 9,
        "shown": 3, "links": LINKS, "coded": {"PD202"}, "pages": ["a.html", "b.html"], "page": 0,
    }  # fmt: skip
    return render("refused.html.jinja", values, tool_version="0.1.0")


@pytest.mark.parametrize("page", [findings_page, refused_page])
def test_no_payload_becomes_markup_among_rows(page: Callable[[str], str]) -> None:
    harmless = Skeleton(page("harmless"))

    for text in ALL:
        found = Skeleton(page(text))

        assert found.tags == harmless.tags, text
        assert found.links == harmless.links, text


def test_no_payload_becomes_markup_in_a_report() -> None:
    harmless = Skeleton(render_report(full_report("harmless")))

    for text in ALL:
        found = Skeleton(render_report(full_report(text)))

        assert found.tags == harmless.tags, text
        assert all(link.startswith("#") for link in found.links), text


def test_no_payload_becomes_markup_among_pairs() -> None:
    for text in ALL:
        found = Skeleton(pairs_page([shown_pair(text)]))

        names = {name for name, _ in found.tags}
        attributes = {attribute for _, some in found.tags for attribute in some}
        assert not names & {"script", "img", "svg", "iframe", "object", "form", "link", "a"}, text
        assert not any(attribute.startswith("on") for attribute in attributes), text
        assert attributes.isdisjoint({"style", "src", "href"}), text


@pytest.mark.parametrize("text", ["<b>\u202e\x1b[0m & 'x' \"y\"", "a\x00b\x9bc"])
def test_text_from_data_is_read_back_as_text(text: str) -> None:
    for page in (render_report(full_report(text)), pairs_page([shown_pair(text)])):
        shown = "".join(Skeleton(page).text)

        assert not HARMFUL & set(page)
        assert "<b>\\u202e\\x1b[0m & 'x' \"y\"" in shown or "a\\x00b\\x9bc" in shown


@pytest.mark.parametrize("page", [render_report(full_report()), pairs_page([shown_pair("x")])])
def test_a_page_allows_its_own_style_and_nothing_else(page: str) -> None:
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None

    assert policy[1].startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert page.count("<style") == 1
    assert " style=" not in page
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?:", page)


def test_the_same_report_gives_the_same_page() -> None:
    assert render_report(full_report()) == render_report(full_report())


def test_a_page_has_a_section_for_all_that_a_report_knows() -> None:
    page = render_report(full_report())

    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert "PD713</span> from warning to counted" in page


def test_a_page_leaves_out_what_a_report_does_not_know() -> None:
    page = render_report(empty_report())

    assert re.findall(r'<section id="(\w+)">', page) == ["reading", "lines", "inputs"]
    assert "prefdata validation" in page


def test_every_loss_is_in_the_funnel_with_its_code_and_number() -> None:
    report = full_report()
    page = render_report(report)
    pictures = re.findall(r'<svg[^>]*class="funnel.*?</svg>', page, re.DOTALL)

    assert len(pictures) == 2  # one for wide pages, one for narrow ones
    for picture in pictures:
        for stage in report.funnel:
            for code, lost in stage.dropped.items():
                assert f">{code}</text>" in picture
                assert f">{lost:,}</text>" in picture


def test_pictures_are_described_in_words() -> None:
    page = render_report(full_report())
    pictures = [picture for picture in page.split("<svg")[1:] if "aria-hidden" not in picture[:200]]

    assert pictures
    assert all("<title>" in picture and "<desc>" in picture for picture in pictures)
    assert page.count("<table") == page.count("<caption>")


def test_a_broken_split_is_reported_as_broken() -> None:
    report = full_report()
    assert report.split_proof is not None
    leaking = report.split_proof.model_copy(update={"leaked": 2})
    page = render_report(report.model_copy(update={"split_proof": leaking}))

    assert "2 clusters of near-duplicates are in two splits" in page
    assert "No prompt has a near-duplicate" in render_report(report)


def test_a_report_reads_back_from_its_own_json() -> None:
    report = full_report("<b>")

    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_report_of_thousands_of_files_is_still_a_page() -> None:
    report = full_report()
    many = [report.inputs[0].model_copy(update={"name": f"part-{n}"}) for n in range(5_000)]
    page = render_report(report.model_copy(update={"inputs": many}))

    assert len(page) < 150_000
    assert "and 4,900 more files" in page


def luminance(color: str) -> float:
    """Return the relative luminance of a color, as WCAG 2 defines it."""
    digits = color.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_enough_contrast_in_light_mode_in_dark_mode_and_in_print() -> None:
    themes = re.findall(r":root \{(.*?)\}", render_report(full_report()), re.DOTALL)
    assert len(themes) == 3
    for theme in themes:
        colors = dict(re.findall(r"--(\w+): (#\w+);", theme))
        pairs = [(text, back) for text in ("ink", "soft") for back in ("paper", "faint", "rule")]
        for text, back in [*pairs, ("ink", "tint"), ("soft", "tint"), ("accent", "paper")]:
            light, dark = sorted((luminance(colors[text]), luminance(colors[back])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back, theme)


def test_the_share_of_longer_chosen_sides_has_one_unit() -> None:
    page = render_report(full_report())

    assert full_report().chosen_longer is not None
    assert any(bias.name == "length" for bias in full_report().biases)
    assert "57 times of 100" not in page  # in characters
    assert "Chosen has more tokens in" in page
