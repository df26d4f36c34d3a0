"""Terminal view of one pair of a build: tokens, colored by field, and the difference."""

from collections.abc import Iterator

from rich.text import Text

from prefdata.report.diff import Span, compare
from prefdata.report.figures import count, percent
from prefdata.report.rows import ShownPair, decoder_of, pieces_of, place_of, read_pair
from prefdata.report.safe import plain
from prefdata.store.reader import Build
from prefdata.tokens.tokenizer import load_sealed

_STYLES = {"prompt": "cyan", "chosen": "green", "rejected": "red"}
_MARKS = {"chosen": ("{+", "+}"), "rejected": ("[-", "-]")}  # as `git diff --word-diff` has them


def show_pair(build: Build, row: int, tokenizer: str | None = None) -> Iterator[Text]:
    """Yield a pair's fields, token by token, then the difference; rows count over all splits."""
    pair = read_pair(build, row)
    decode = decoder_of(load_sealed(build.manifest.tokenizer, tokenizer))
    place = plain(place_of(pair.text))
    about = f"row {row}: {pair.split}[{pair.at}], pair {pair.tokens['pair_id'].hex()}, {place}"
    yield Text(about, style="bold")
    for part, style in _STYLES.items():
        ids, mask = pair.tokens[f"{part}_ids"], pair.tokens.get(f"{part}_mask")
        yield Text(f"{part}: {count(len(ids), 'token')}", style=f"bold {style}")
        text = Text()
        for number, piece in enumerate(pieces_of(ids, mask, decode)):
            shade = "" if number % 2 else " on grey15"
            shown = plain(piece.text, lines=True)
            text.append(shown, style=f"{style if piece.trained else 'dim'}{shade}")
        yield text
    yield from _difference(pair)


def _difference(pair: ShownPair) -> Iterator[Text]:
    """Yield both sides, with marks around text that is in only one of them."""
    found = compare(pair.words("chosen"), pair.words("rejected"))
    shared = f"{percent(found.shared)} of the words are in passages that both share"
    yield Text(f"difference: {shared}", style="bold")
    for side, spans in (("chosen", found.left), ("rejected", found.right)):
        yield _marked(spans, side)


def _marked(spans: list[Span], side: str) -> Text:
    text, (before, after) = Text(), _MARKS[side]
    for span in spans:
        shown = plain(span.text, lines=True)
        if span.differs:
            text.append(f"{before}{shown}{after}", style=f"bold {_STYLES[side]}")
        else:
            text.append(shown)
    return text
