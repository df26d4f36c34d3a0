"""One pair of a build as the terminal shows it: its text as tokens, colored by part."""

from collections.abc import Iterator

from rich.text import Text

from prefdata.errors import UsageError
from prefdata.report.safe import plain
from prefdata.store.reader import Build
from prefdata.tokens.target import load_target

_STYLES = {"prompt": "cyan", "chosen": "green", "rejected": "red"}


def show_pair(build: Build, row: int) -> Iterator[Text]:
    """The parts of a pair, token by token; the row counts over all splits, from 0."""
    split, at = _find_row(build, row)
    pair = build.tokens(split).slice(at, 1).to_pylist()[0]
    config = build.manifest.config
    target = load_target(build.manifest.tokenizer.name, revision=config.get("revision"))
    yield Text(f"row {row}: {split}[{at}], pair {pair['pair_id'].hex()}", style="bold")
    for part, style in _STYLES.items():
        ids, mask = pair[f"{part}_ids"], pair.get(f"{part}_mask")
        yield Text(f"{part}: {len(ids)} tokens", style=f"bold {style}")
        text = Text()
        for number, token in enumerate(ids):
            trained = mask is None or mask[number]
            shade = "" if number % 2 else " on grey15"
            shown = plain(target.backend.decode([token], skip_special_tokens=False), lines=True)
            text.append(shown, style=f"{style if trained else 'dim'}{shade}")
        yield text


def _find_row(build: Build, row: int) -> tuple[str, int]:
    at = row
    for name, split in build.splits.items():
        if 0 <= at < split.rows:
            return name, at
        at -= split.rows
    total = sum(split.rows for split in build.splits.values())
    raise UsageError("E144", str(build.path), f"has no row {row}", f"rows are 0 to {total - 1}")
