"""Pages in a real browser: no dialog, no script, no request, nothing wider than a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefdata.report.html.page import render_report
from tests.prefdata.report.chromium import BROWSER, CUT, DRIVER, Chromium, open_chromium
from tests.prefdata.report.payloads import XSS, naughty_strings
from tests.prefdata.report.synthetic import full_report, shown_pair
from tests.prefdata.report.test_pages import findings_page, pairs_page, refused_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium with its chromedriver"),
]

# Counts of elements that a page must not have, and of those that it has.
COUNT = """
const all = [...document.querySelectorAll('*')];
const banned = 'script img iframe object embed form link base video audio plaintext'.split(' ');
const acts = node => [...node.attributes].some(a => /^on|^style$/.test(a.name));
const stays = link => /^#|^[\\w-]+\\.html(#row-\\d+)?$/.test(link.getAttribute('href'));
return {
  banned: all.filter(node => banned.includes(node.localName)).length,
  acting: all.filter(acts).length,
  leaving: [...document.links].filter(link => !stays(link)).length,
  elements: all.map(node => node.localName),
  styled: getComputedStyle(document.body).maxWidth,
};
"""
_AT_ONCE = 10  # payloads on a page


def grouped(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with open_chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def look_at(chromium: Chromium, path: Path) -> dict[str, object]:
    """Open a page, and count the elements that it must not have."""
    chromium.open(path)
    assert chromium.dialog() is None
    found: dict[str, object] = chromium.run(COUNT)
    assert chromium.dialog() is None
    return found


def assert_does_nothing(chromium: Chromium, path: Path, texts: list[str]) -> dict[str, object]:
    found = look_at(chromium, path)

    assert (found["banned"], found["acting"], found["leaving"]) == (0, 0, 0), texts
    assert found["styled"] != "none", "the policy must let the page's own style through"
    assert set(chromium.requests()) <= {path.as_uri()}, texts
    return found


def test_a_page_that_does_harm_would_be_seen(chromium: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "harm.html"
    page.write_text("<!doctype html><img src='http://127.0.0.1:9/x.gif'><p onclick='x'>")
    found = look_at(chromium, page)

    assert (found["banned"], found["acting"]) == (1, 1)
    assert "http://127.0.0.1:9/x.gif" in chromium.requests()

    page.write_text("<!doctype html><script>alert('seen')</script>")
    chromium.open(page)
    assert chromium.dialog() == "seen"
    chromium.dismiss()
    chromium.requests()


def test_no_payload_does_anything_in_a_report(chromium: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(full_report("harmless")), encoding="utf-8")
    harmless = look_at(chromium, page)["elements"]
    for texts in grouped([*XSS, *naughty_strings()]):
        page.write_text(render_report(full_report("\n".join(texts))), encoding="utf-8")

        assert assert_does_nothing(chromium, page, texts)["elements"] == harmless, texts


def test_no_payload_does_anything_among_pairs(chromium: Chromium, tmp_path: Path) -> None:
    page = tmp_path / "pairs.html"
    for texts in grouped([*XSS, *naughty_strings()]):
        page.write_text(pairs_page([shown_pair(text) for text in texts]), encoding="utf-8")

        assert_does_nothing(chromium, page, texts)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_shows_its_texts_whole(chromium: Chromium, tmp_path: Path, width: int) -> None:
    long = "x" * 400
    pages = {
        "report": render_report(full_report()),
        "long": render_report(full_report(long)),
        "pairs": pairs_page([shown_pair(long)]),
        "findings": findings_page(long),
        "refused": refused_page(long),
    }
    for name, page in pages.items():
        path = tmp_path / f"{name}.html"
        path.write_text(page, encoding="utf-8")
        chromium.resize(width)
        chromium.open(path)

        assert chromium.run(CUT) == [], name
    chromium.requests()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<p style='width: 900px'>wide</p>", "wide"),
        ("<p style='width: 9px; overflow: hidden; white-space: nowrap'>hidden</p>", "hides a part"),
        ("<svg viewBox='0 0 9 9' width='20'><text x='5'>label</text></svg>", "label is cut"),
    ],
)
def test_a_cut_text_would_be_seen(
    chromium: Chromium, tmp_path: Path, body: str, fault: str
) -> None:
    path = tmp_path / "cut.html"
    path.write_text(f"<!doctype html><meta name=viewport content='width=device-width'>{body}")
    chromium.resize(390)
    chromium.open(path)

    assert any(fault in one for one in chromium.run(CUT))
    chromium.requests()
