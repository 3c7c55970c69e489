"""``wsthreads check``: loads handlers without serving them."""

from __future__ import annotations

import sys

import click

from wsthreads.cli.streams import complain
from wsthreads.errors import WSThreadsError

__all__ = ["check"]


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--path", metavar="PATH", help="Path of a single handler, in place of /ws/<name>.")
def check(targets: tuple[str, ...], path: str | None) -> int:
    """Load handlers without serving them.

    Prints the functions of each handler. For a mistake, it prints the file, the line and the column, and suggests a
    name if one is misspelled. Python files are executed, as by an import. The status is 1 if a handler cannot be
    served.
    """
    from wsthreads.cli.checks import all_logs_hidden, check_target, console_shown
    from wsthreads.cli.targets import find_targets

    status = 0
    for target in find_targets(targets, path):
        try:
            with console_shown(sys.stderr) if target.is_script else all_logs_hidden():
                finding = check_target(target)
        except WSThreadsError as error:
            status = complain(error)
            continue
        click.echo(f"{target.file}  {target.path}  {', '.join(finding.functions)}")
        for remark in finding.remarks:
            click.echo(remark)
    return status
