"""Fuzz tests: for any bytes no traceback, no wrong count, no foreign file touched.

Seeded: a failure reports the number of its case, and `make_input(FORMAT, NUMBER)` repeats it.
`make stress` tries 20,000 inputs, 5,000 configs and 2,000 directories; a plain run 300 in all.
"""

import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import prefdata
from dpo.config_file import parse_config
from dpo.config_file import read_config as read_train_config
from dpo.data.reference_store import open_reference
from dpo.training.checkpoint import find_checkpoint
from dpo.training.loop import train
from prefdata.building import build
from prefdata.config import BuildConfig, make_config
from prefdata.config import read_config as read_build_config
from prefdata.errors import CodedError, PrefdataError
from prefdata.report.model import Report
from prefdata.store.canonical import fingerprint
from prefdata.validation import ValidateOptions, validate
from tests.census import require_untouched, snapshot
from tests.effort import IS_FULL, times
from tests.fuzz.folders import damage, make_base, run_settings
from tests.fuzz.inputs import FORMATS, make_input, num_rows
from tests.fuzz.settings import make_settings

pytestmark = pytest.mark.stress
CHUNKS = times(1, 10)
INPUTS = times(15, 143)  # of each format and chunk: 20,020 in 14 formats and 10 chunks
CONFIGS = times(30, 2_500)  # of each kind
FOLDERS = times(30, 200)  # of each chunk
BUILD_EVERY, RESUME_EVERY = 15, 10


class Failures:
    """Failures by kind, with the numbers of the cases."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {}

    def add(self, number: int, kind: str) -> None:
        self.found.setdefault(kind, []).append(number)

    def crash(self, number: int, error: BaseException) -> None:
        """Record an exception that no command handles, by the place that raised it."""
        frames = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if "site-packages" not in f.filename
        ]
        last = frames[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        self.add(number, f"{type(error).__name__} at {where}: {str(error)[:100]}")

    @contextmanager
    def watch(self, number: int) -> Iterator[None]:
        """Ignore coded errors, and record all others."""
        try:
            yield
        except CodedError:
            pass
        except OSError as error:  # commands report one with a file name (E192)
            if not error.filename:
                self.crash(number, error)
        except AssertionError as error:
            self.add(number, str(error))
        except Exception as error:  # noqa: BLE001 - these are counted
            self.crash(number, error)

    def require_none(self) -> None:
        lines = [
            f"{kind}: {len(numbers)}, first {numbers[:5]}" for kind, numbers in self.found.items()
        ]
        assert not lines, "\n".join(lines)


def numbers(chunk: int, count: int) -> Iterator[int]:
    yield from range(chunk * count, (chunk + 1) * count)


def require_counts(report: Report, expected: int | None) -> None:
    """Fail unless the counts of a report add up and equal those of another parser."""
    lines = report.lines
    parts = lines.blank + lines.kept + lines.duplicates + lines.filtered + lines.rejected
    assert lines.lines == parts, "the law of conservation"
    if expected is not None:
        assert lines.lines - lines.blank == expected, "another count than an independent parser's"


def report_of_build(path: Path, tokenizer: Path) -> Report:
    made = build(BuildConfig(inputs=[str(path)], tokenizer=str(tokenizer), out=Path("out")))
    return Report.model_validate_json(made.file("report.json").read_bytes())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory that contains foreign files."""
    monkeypatch.chdir(tmp_path)
    for name in ("notes.txt", "text/mine.txt", "out.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    return tmp_path


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("name", FORMATS)
def test_an_input_is_read_rightly_or_refused(
    name: str, chunk: int, desk: Path, fuzz_tokenizer: Path
) -> None:
    failures = Failures()
    for number in numbers(chunk, INPUTS):
        made = make_input(name, number)
        path = Path(f"in{made.suffix}")
        path.write_bytes(made.data)
        before = snapshot(desk)
        with failures.watch(number):
            if number % BUILD_EVERY:
                report = validate([str(path)], ValidateOptions(workers=1))
            else:
                report = report_of_build(path, fuzz_tokenizer)
            require_counts(report, num_rows(path, made.data))
        with failures.watch(number):
            require_untouched(before, snapshot(desk), own=["out"])
        shutil.rmtree("out", ignore_errors=True)
    failures.require_none()


def test_size_statistics_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """pyarrow aborts the process on this file: an uncaught C++ exception."""
    made = make_input("parquet", 100_008)
    path = tmp_path / "in.parquet"
    path.write_bytes(made.data)

    with pytest.raises(PrefdataError) as caught:
        validate([str(path)], ValidateOptions(workers=1))
    assert caught.value.code == "E114"
    assert "size statistics" in str(caught.value)


def test_a_footer_that_says_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    made = make_input("plain parquet", 427)
    path = tmp_path / "in.parquet"
    path.write_bytes(made.data)

    with pytest.raises(PrefdataError, match="it has 7 rows, and its footer says 15"):
        validate([str(path)], ValidateOptions(workers=1))


@pytest.mark.parametrize("kind", ["build", "train"])
def test_a_config_is_read_or_refused(kind: str, desk: Path) -> None:
    failures, path = Failures(), Path("c.yaml")
    for number in range(CONFIGS):
        path.write_bytes(make_settings(kind, number))
        before = snapshot(desk)
        with failures.watch(number):
            if kind == "build":
                config = read_build_config(path)
                fingerprint(config.identity)
                make_config(config.identity | {"out": config.out}, place="again")
            else:
                parse_config(read_train_config(path).model_dump(mode="json"), place="again")
        require_untouched(before, snapshot(desk))
    failures.require_none()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def fuzz_tokenizer(base: Path) -> Path:
    return base / "model"


def read_all(folder: Path) -> None:
    """Read a build, its reference and its checkpoints as the commands do."""
    made = prefdata.open(folder / "data")
    for split in made.manifest.splits:
        made.tokens(split)
        made.text(split)
    made.rejected()
    Report.model_validate_json(made.file("report.json").read_bytes())
    open_reference(made, "default")
    find_checkpoint(folder / "run" / "checkpoints")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_directory_is_read_rightly_or_refused(chunk: int, base: Path, tmp_path: Path) -> None:
    failures, folder = Failures(), tmp_path / "case"
    for number in numbers(chunk, FOLDERS):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        foreign = damage(folder, number)
        before = snapshot(folder)
        with failures.watch(number):
            read_all(folder)
        if number % RESUME_EVERY == 0:
            with failures.watch(number):
                train(parse_config(run_settings(folder), place="again"))
        after = snapshot(folder)
        with failures.watch(number):
            require_untouched(before, after, own=["run"])
            for name in foreign:
                assert before.get(name) == after.get(name), f"foreign file {name}"
    failures.require_none()


def test_the_numbers_are_those_that_are_promised() -> None:
    inputs, folders = len(FORMATS) * CHUNKS * INPUTS, CHUNKS * FOLDERS
    if IS_FULL:
        assert (inputs >= 20_000, 2 * CONFIGS >= 5_000, folders >= 2_000) == (True, True, True)
    else:
        assert inputs + 2 * CONFIGS + folders >= 300
