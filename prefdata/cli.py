"""Commands: validate · build · show · diff · push · pull · verify · layouts · explain.

Exit codes are in command.py.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from prefdata.command import CHECKS, CODES, LAYOUTS, SETTINGS, SEVERITIES, Group, say
from prefdata.errors import EmptyError
from prefdata.report.console import PlainConsole
from prefdata.sharing.commands import diff, pull, push, verify

if TYPE_CHECKING:
    from prefdata.records.sources import Inputs, Source
    from prefdata.report.model import Report

Command = TypeVar("Command", bound=Callable[..., Any])

_TOKENIZER_HELP = "A directory with a tokenizer, or a model on the Hub."
_LAYOUT_HELP = "A layout's name (`prefdata layouts`) or file; detected if absent."
_TEXT_HELP = "Plain text as chat turns or verbatim; auto decides by evidence, or stops (E180)."
_ENGINES = click.Choice(["local", "ray"])
_TEXT_MODES = click.Choice(["auto", "chat", "verbatim"])
_REPORT_HELP = "Write the report; the name's ending sets the form: .json, .html or .sarif."


def _options(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command, in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_split_options = _options(
    click.option(
        "--split",
        "given",
        multiple=True,
        metavar="SPLIT=FILE",
        help="Split of a file or glob; default: by its name. Can be given again.",
    ),
    click.option("--resplit", is_flag=True, help="Mix all files, and ignore their splits."),
    click.option(
        "--leaks",
        type=click.Choice(["drop_from_train", "refuse", "report"]),
        help="Policy for pairs and prompts that two splits share.",
    ),
)
_SIDES = {"prompt": "the prompt", "chosen": "the better answer", "rejected": "the worse answer"}
_column_options = _options(
    *(
        click.option(
            f"--{side}-column",
            metavar="NAME",
            help=f"The column with {what}, if it has another name.",
        )
        for side, what in _SIDES.items()
    )
)


def _named_columns(options: dict[str, Any]) -> dict[str, str]:
    """Return the named columns, and remove them from a command's options."""
    named = {side: options.pop(f"{side}_column", None) for side in _SIDES}
    return {side: name for side, name in named.items() if name is not None}


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    """Return the config keys that a command's options set; options that are not given set none."""
    named = {"columns": _named_columns(options), **options}
    given = {name: value for name, value in named.items() if value not in (None, (), False, {})}
    return {n: list(value) if isinstance(value, tuple) else value for n, value in given.items()}


def _with_stdin(inputs: "Inputs | str | Source") -> "list[Source]":
    """Return inputs in which `-` is a file with what stands in standard input."""
    from prefdata.read.memory import spooled

    return click.get_current_context().with_resource(spooled(inputs, sys.stdin.buffer))


def _show(report: "Report", path: Path | None) -> None:
    """Print a report, and write it if a path is given."""
    from prefdata.report.form import write_report
    from prefdata.report.terminal import print_report

    print_report(report, PlainConsole())
    if path is not None:
        write_report(report, path, root=Path.cwd())


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nTab completion (bash; zsh and fish likewise):\n"
    '  eval "$(_PREFDATA_COMPLETE=bash_source prefdata)"',
)
@click.version_option(package_name="prefdata-dpo")
def main() -> None:
    """Raw preference files in, token shards out."""


for command in (push, pull, verify, diff):
    main.add_command(command)


@main.command(epilog="\b\nExample:\n  prefdata validate data/*.jsonl.gz --fail-on warning")
@click.argument("files", nargs=-1)
@click.option("--layout", metavar="NAME", help=_LAYOUT_HELP, shell_complete=LAYOUTS)
@click.option("--tokenizer", metavar="NAME", help=f"{_TOKENIZER_HELP} Checks tokens too.")
@click.option("--text", type=_TEXT_MODES, default="auto", help=_TEXT_HELP)
@_column_options
@click.option(
    "--severity",
    multiple=True,
    metavar="CODE=LEVEL",
    shell_complete=SEVERITIES,
    help="Change a check: E, W, I or off. Can be given again.",
)
@click.option(
    "--check",
    "own",
    multiple=True,
    metavar="MODULE:FUNCTION",
    help="Run a check of your own also. Can be given again.",
)
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    metavar="FILE",
    help="Refuse rows that overlap an evaluation file (PD503). Can be given again.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="error",
    show_default=True,
    help="Which findings make the exit code 1.",
)
@_split_options
@click.option("--near", is_flag=True, help="Find near-duplicates also (PD402); slower.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; the result is the same.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="An earlier report: fail only on findings that are new, or now in more rows.",
)
@click.option("--report", "report_path", type=click.Path(path_type=Path), help=_REPORT_HELP)
def validate(
    files: tuple[str, ...],
    severity: tuple[str, ...],
    fail_on: str,
    baseline: Path | None,
    report_path: Path | None,
    **options: Any,
) -> None:
    """Read and check preference files; write nothing."""
    from prefdata.config import checks_with, inputs_by_split
    from prefdata.dedup.near import NearDuplicates
    from prefdata.hub.inputs import fetch_inputs
    from prefdata.read import Columns
    from prefdata.report.form import (
        check_report_target,
        examples_for,
        fails,
        new_findings,
        read_report,
    )
    from prefdata.report.terminal import TerminalProgress
    from prefdata.store.ownership import Read
    from prefdata.validation import ValidateOptions, reads_of
    from prefdata.validation import validate as run

    progress = TerminalProgress(PlainConsole(stderr=True))
    before = read_report(baseline) if baseline else None
    changes = dict(change.partition("=")[::2] for change in severity)
    inputs = fetch_inputs(_with_stdin(inputs_by_split(files, options.pop("given"))))
    options = {name: value for name, value in options.items() if value is not None}
    how = ValidateOptions(
        severity=changes,
        checks=checks_with(options.pop("own")),
        examples=examples_for(report_path),
        excerpts=report_path is not None and report_path.suffix != ".sarif",
        near=NearDuplicates() if options.pop("near") else None,
        columns=Columns(**_named_columns(options)),
        **options,
    )
    reads = [*reads_of(inputs, how), *([Read("the baseline", baseline)] if baseline else [])]
    check_report_target(report_path, reads)
    report = run(inputs, how, progress=progress)
    for note in report.notes:
        progress.note(note)
    _show(report, report_path)
    judged = new_findings(report, before) if before else report.findings
    if before:
        fresh = ", ".join(f"{finding.code} {finding.name}" for finding in judged) or "nothing"
        say(f"New since {baseline}: {fresh}")
    sys.exit(1 if fails(judged, fail_on) else 0)


@main.command(
    epilog="\b\nExamples:\n  prefdata build hh.jsonl.gz --tokenizer Qwen/Qwen3-0.6B -o out/hh\n"
    "  prefdata build hh.yaml"
)
@click.argument("sources", nargs=-1, metavar="CONFIG.yaml | FILES…")
@click.option("--tokenizer", metavar="NAME", help=_TOKENIZER_HELP)
@click.option("-o", "--out", metavar="FOLDER", help="Directory for the build.")
@click.option("--layout", metavar="NAME", help=_LAYOUT_HELP, shell_complete=LAYOUTS)
@click.option("--text", type=_TEXT_MODES, help=_TEXT_HELP)
@_split_options
@_column_options
@click.option("--exclude", multiple=True, metavar="FILE", help="Exclude pairs by these ids.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; output is byte-identical.")
@click.option("--engine", type=_ENGINES, help="This machine, or a Ray cluster (RAY_ADDRESS).")
@click.option("--replace", is_flag=True, help="Replace another build in the directory.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help=_REPORT_HELP)
def build(
    sources: tuple[str, ...],
    replace: bool,  # noqa: FBT001 - click's
    given: tuple[str, ...],
    report_path: Path | None,
    **options: Any,
) -> None:
    """Make token shards; an interrupted build resumes."""
    from prefdata.building import build as run
    from prefdata.config import inputs_by_split, make_config, read_config
    from prefdata.report.form import check_report_target, examples_for
    from prefdata.report.terminal import TerminalProgress
    from prefdata.stages.excerpts import full_report
    from prefdata.stages.output import files_of, reads_of, with_fetched_inputs
    from prefdata.store.ownership import Read

    num_examples = examples_for(report_path)
    changes = _changes(options)
    of_config: list[Read] = []
    if len(sources) == 1 and Path(sources[0]).suffix in (".yaml", ".yml"):
        of_config = [Read("the config", Path(sources[0]))]
        config = read_config(Path(sources[0]), changes, given)
    else:
        inputs = inputs_by_split(sources, given)
        config = make_config({"inputs": inputs, **changes}, place="command line")
    config = config.model_copy(update={"inputs": _with_stdin(config.inputs)})
    if report_path is not None:
        config = with_fetched_inputs(config)
        reads = [*of_config, *reads_of(config, files_of(config))]
        check_report_target(report_path, reads, build=config.out)
    try:
        made = run(config, replace=replace, progress=TerminalProgress(PlainConsole(stderr=True)))
    except EmptyError as error:
        if error.report is not None:
            _show(error.report, report_path)
        raise
    _show(full_report(made, num_examples), report_path)
    say(f"{made.path} is built; its manifest's hash is {made.manifest.hash[:16]}…")


@main.command(
    epilog="\b\nExamples:\n  prefdata show out/hh\n  prefdata show out/hh --row 7\n"
    "  prefdata show out/hh --rejected --rows 5\n  prefdata show out/hh --code PD209\n"
    "  prefdata show out/hh --html pairs --rows 500"
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--row", type=click.IntRange(min=0), help="Show one pair: tokens, difference.")
@click.option("--id", "pair_id", metavar="ID", help="The same by its id, or the id's first digits.")
@click.option(
    "--code",
    metavar="CODE",
    help="Show the rows that have a code, with their text.",
    shell_complete=CHECKS,
)
@click.option("--rejected", is_flag=True, help="Show the refused rows.")
@click.option("--duplicates", is_flag=True, help="Show the copies that were dropped.")
@click.option("--near", is_flag=True, help="Show near-duplicates, each with the row it is near to.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="Write pairs as pages: FILE.html or a directory.",
)
@click.option(
    "--sort",
    type=click.Choice(["spread", "length-gap", "margin"]),
    help="Pairs in the pages: evenly spaced, of unequal lengths first, or of small margins first.",
)
@click.option(
    "--suspects",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Pairs in the pages: those in suspects.jsonl of dpo-score, in its order.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    help="Number of pairs in the pages, evenly spaced (200), or of rows in a list (20).",
)
@click.option(
    "--tokenizer",
    metavar="NAME",
    help="The build's tokenizer, if it is not found: for --row, --id, --code and --html.",
)
def show(out: Path, **options: Any) -> None:
    """Show the contents of a finished build: its report, one pair, or rows and their reasons."""
    from prefdata.report.listing import list_rows, show_listing
    from prefdata.report.rows import find_id
    from prefdata.report.terminal import print_report
    from prefdata.report.views import ShowOptions
    from prefdata.stages.excerpts import full_report
    from prefdata.store.reader import open_build

    how = ShowOptions(**options)
    how.require_apart()
    made, console = open_build(out), PlainConsole()
    if how.html is not None:
        from prefdata.report.html.browser import show_pages

        say(show_pages(made, how.html, how))
    elif how.row is not None or how.pair_id is not None:
        from prefdata.report.pair import show_pair

        row = find_id(made, how.pair_id) if how.pair_id is not None else how.row
        for text in show_pair(made, row or 0, how.tokenizer):
            console.print(text, soft_wrap=True)
    elif (listing := list_rows(made, how)) is not None:
        for text in show_listing(listing, how.most):
            console.print(text, soft_wrap=True)
    else:
        print_report(full_report(made), console)


@main.command(
    epilog="\b\nExamples:\n  prefdata layouts helpsteer2-ratings\n"
    "  prefdata layouts --new judged.jsonl > mine.yaml\n"
    "  prefdata layouts mine.yaml --try judged.jsonl"
)
@click.argument("name", required=False, shell_complete=LAYOUTS)
@click.option("--new", metavar="FILE", help="Write a first try of a layout for the rows of a file.")
@click.option("--try", "tried", metavar="FILE", help="Read a file's first rows by the layout NAME.")
def layouts(name: str | None, new: str | None, tried: str | None) -> None:
    """List the raw layouts; show one, by name or file; or make one of your own."""
    from prefdata.read import find_layout, known_layouts, load_layout
    from prefdata.read.trial import check_fixture
    from prefdata.report.layouts import describe_layout, list_layouts
    from prefdata.report.trial import say_first_try, say_trial

    if (new and (name or tried)) or (tried and not name):
        raise click.UsageError("give NAME, NAME --try FILE, or --new FILE")
    lines: Iterable[str]
    is_good = True
    if new:
        lines = say_first_try(new)
    elif tried:
        lines, is_good = say_trial(load_layout(str(name)), tried)
    elif name is None:
        lines = list_layouts(known_layouts().values())
    else:
        layout = find_layout(name)[0]
        check_fixture(layout, name)
        lines = describe_layout(layout)
    for line in lines:
        say(line)
    sys.exit(0 if is_good else 1)


@main.command(
    add_help_option=False,
    epilog="\b\nExamples:\n  prefdata config\n  prefdata config --help limits.max_depth",
)
@click.argument("key", required=False, shell_complete=SETTINGS)
@click.option("-h", "--help", "helps", is_flag=True, help="Show this message, or explain KEY.")
def config(key: str | None, helps: bool) -> None:  # noqa: FBT001 - click's
    """Explain a key of a build's config; without a key, list all keys."""
    from prefdata.config import explain_key, list_keys

    if helps and key is None:
        click.echo(click.get_current_context().get_help())
        return
    for line in explain_key(key) if key else list_keys():
        say(line)


@main.command(epilog="\b\nExamples:\n  prefdata explain PD301\n  prefdata explain")
@click.argument("code", required=False, shell_complete=CODES)
def explain(code: str | None) -> None:
    """Explain a code and its fix; without a code, list all codes."""
    from prefdata.report.explain import describe_code, explain_code, list_codes

    for line in explain_code(describe_code(code)) if code else list_codes():
        say(line)
