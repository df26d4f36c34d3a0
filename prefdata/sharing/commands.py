"""The commands about the Hub: push · pull · verify. Exit codes are in command.py."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from prefdata.command import Command, say
from prefdata.report.console import PlainConsole


def quiet_bars() -> None:
    """Let the Hub's client draw its bars on a terminal alone; it reads this when it is imported."""
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
@click.option("--with-rejected", is_flag=True, help="Share the refused rows too, as they were.")
@click.option("--replace", is_flag=True, help="Remove files from the repo that no push made.")
@click.option("--revision", "branch", metavar="BRANCH", help="Commit to a branch, made if needed.")
@click.option("--license", "licence", metavar="NAME", help="Of the set: mit, cc-by-4.0 …")
@click.option("--no-license", "no_licence", is_flag=True, help="Share a set without a licence.")
@click.option("--allow-secrets", is_flag=True, help="Share texts with what looks like secrets.")
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
    help="Where the build goes.",
)
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="One split alone. Can be given again."
)
@click.option("--replace", is_flag=True, help="Replace another build in the folder.")
def pull(name: str, out: Path, splits: tuple[str, ...], *, replace: bool) -> None:
    """Write a shared set as the build it was made from, hash by hash; resume by itself."""
    quiet_bars()
    from prefdata.report.terminal import TerminalProgress
    from prefdata.sharing.pull import find_set, split_revision
    from prefdata.sharing.pull import pull as run

    found = find_set(*split_revision(name))._replace(splits=splits)
    made = run(found, out, replace=replace, progress=TerminalProgress(PlainConsole(stderr=True)))
    rows = sum(split.rows for split in made.splits.values())
    part = f" ({', '.join(made.splits)} alone)" if made.manifest.part_of else ""
    say(f"{out} is {found.repo.name} at {found.commit}{part}: {rows:,} pairs, every row as shared")


@click.command(
    cls=Command, epilog="\b\nExamples:\n  prefdata verify out/hh\n  prefdata verify ORG/hh-pairs@v1"
)
@click.argument("name", metavar="OUT | ORG/NAME[@REV]")
def verify(name: str) -> None:
    """Hash every file of a build, or of a shared set, again; exit 1 if one is missing or other."""
    quiet_bars()
    from prefdata.sharing.local import verify_named

    found = verify_named(name)
    for line in found.faults:
        say(line)
    for path in found.absent:
        say(f"{path} is not here: refused rows stay where a set was built, unless they are shared")
    say(f"{name}: {found.num_files:,} files are as they were sealed, {len(found.faults):,} are not")
    sys.exit(1 if found.faults else 0)
