"""Commands on shared sets and builds: push · pull · verify · diff. Exit codes: command.py."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from prefdata.command import Command, say
from prefdata.report.console import PlainConsole


def quiet_bars() -> None:
    """Turn off the Hub client's bars if stderr is not a terminal; call this before importing it."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@click.command(
    cls=Command,
    epilog="\b\nExamples:\n  prefdata push out/hh ORG/hh-pairs --dry-run\n"
    "  prefdata push out/hh ORG/hh-pairs --license mit",
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("repo", metavar="ORG/NAME")
@click.option("--public", is_flag=True, help="Make a new repo public, or push to a public one.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--dry-run", is_flag=True, help="Show what would be uploaded; change nothing.")
@click.option("--with-rejected", is_flag=True, help="Also share the refused rows, unchanged.")
@click.option("--replace", is_flag=True, help="Remove files from the repo that no push made.")
@click.option("--revision", "branch", metavar="BRANCH", help="Commit to a branch, new or not.")
@click.option("--license", "licence", metavar="NAME", help="Licence of the set: mit, cc-by-4.0 …")
@click.option("--no-license", "no_licence", is_flag=True, help="Share a set without a licence.")
@click.option("--allow-secrets", is_flag=True, help="Share texts that seem to contain secrets.")
def push(out: Path, repo: str, **options: Any) -> None:
    """Share a build on the Hub: text, tokens and reference log-probs in one commit."""
    quiet_bars()
    from prefdata.report.terminal import TerminalProgress
    from prefdata.sharing.push import PushOptions, say_pushed
    from prefdata.sharing.push import push as run

    progress = TerminalProgress(PlainConsole(stderr=True))
    for line in say_pushed(repo, run(out, repo, PushOptions(**options), progress=progress)):
        say(line)


@click.command(
    cls=Command,
    epilog="\b\nExamples:\n  prefdata pull ORG/hh-pairs -o out/hh\n"
    "  prefdata pull ORG/hh-pairs@v1 --split test -o out/hh-test",
)
@click.argument("name", metavar="ORG/NAME[@REV]")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Directory for the build.",
)
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Pull only this split; repeatable."
)
@click.option("--replace", is_flag=True, help="Replace another build in the directory.")
def pull(name: str, out: Path, splits: tuple[str, ...], *, replace: bool) -> None:
    """Write a shared set as the build it was made from, checked by hash; resume if interrupted."""
    quiet_bars()
    from prefdata.report.terminal import TerminalProgress
    from prefdata.sharing.pull import find_set, split_revision
    from prefdata.sharing.pull import pull as run

    found = find_set(*split_revision(name))._replace(splits=splits)
    made = run(found, out, replace=replace, progress=TerminalProgress(PlainConsole(stderr=True)))
    rows = sum(split.rows for split in made.splits.values())
    part = f" (only {', '.join(made.splits)})" if made.manifest.part_of else ""
    say(f"{out} is {found.repo.name} at {found.commit}{part}: {rows:,} pairs, every row as shared")


@click.command(
    cls=Command, epilog="\b\nExamples:\n  prefdata verify out/hh\n  prefdata verify ORG/hh-pairs@v1"
)
@click.argument("name", metavar="OUT | ORG/NAME[@REV]")
def verify(name: str) -> None:
    """Rehash every file of a build or a shared set; exit 1 if one is missing or has changed."""
    quiet_bars()
    from prefdata.sharing.local import verify_named

    found = verify_named(name)
    for line in found.faults:
        say(line)
    for path in found.absent:
        say(f"{path} is not here: refused rows are shared only by push --with-rejected")
    say(f"{name}: {found.num_files:,} files match their hashes, {len(found.faults):,} do not")
    sys.exit(1 if found.faults else 0)


@click.command(
    cls=Command,
    epilog="\b\nExamples:\n  prefdata diff out/v1 out/v2\n"
    "  prefdata diff ORG/hh-pairs@v1 out/v2 --report diff.html",
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--report", "report_path", type=click.Path(path_type=Path), help="Write it to .json or .html."
)
def diff(first: str, second: str, report_path: Path | None) -> None:
    """Compare two builds or shared datasets, pair by pair; exit 1 if they differ."""
    quiet_bars()
    from prefdata.comparison.show import check_target, say_comparison, write_comparison
    from prefdata.sharing.local import diff_named
    from prefdata.stages.plan import TOOL_VERSION

    if report_path is not None:
        check_target(report_path)
    found = diff_named(first, second)
    for line in say_comparison(found):
        say(line)
    if report_path is not None:
        write_comparison(found, report_path, tool_version=TOOL_VERSION)
    sys.exit(1 if found.differs else 0)
