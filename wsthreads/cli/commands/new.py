"""``wsthreads new``: makes a folder with a handler to start from."""

from __future__ import annotations

import os
import shlex

import click

__all__ = ["new"]


@click.command()
@click.argument("folder")
@click.option("--typescript", "language", flag_value="typescript", help="Write TypeScript in place of JavaScript.")
@click.option("--python", "language", flag_value="python", help="Write Python in place of JavaScript.")
def new(folder: str, language: str | None) -> None:
    """Make a folder with a handler to start from.

    The handler is a chat that has the folder's name. The folder also gets a page, a test, and for JavaScript and
    TypeScript the types of the API, for your editor. Existing files are not overwritten.
    """
    from wsthreads.cli.scaffold import scaffold

    handler, *others = scaffold(folder, language or "javascript")
    for file in (handler, *others):
        click.echo(file)
    click.echo("\nNext:")
    if os.path.normpath(folder) != ".":
        click.echo(f"  cd {shlex.quote(folder)}")
    click.echo(f"  wsthreads run {handler.name} --static public --serve-client --reload")
    click.echo(f"  wsthreads check {handler.name}")
    click.echo("  python -m pytest    # after: pip install pytest")
