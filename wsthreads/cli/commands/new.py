"""``wsthreads new``: makes a folder with a handler to start from, and the files to deploy it."""

from __future__ import annotations

import os
import shlex

import click

from wsthreads.errors import UsageError

__all__ = ["new"]


@click.command()
@click.argument("folder", required=False)
@click.option("--typescript", "language", flag_value="typescript", help="Write TypeScript in place of JavaScript.")
@click.option("--python", "language", flag_value="python", help="Write Python in place of JavaScript.")
@click.option("--deploy", is_flag=True, help="Also write files for gunicorn, systemd, nginx, a container and Grafana.")
@click.option(
    "--app",
    default="",
    metavar="MODULE:NAME",
    help="With --deploy: the WSGI application to serve, if the command does not find it.",
)
def new(folder: str | None, language: str | None, deploy: bool, app: str) -> None:
    """Make a folder with a handler to start from.

    The handler is a chat that has the folder's name. The folder also gets a page, a test, and for JavaScript and
    TypeScript the types of the API, for your editor. Existing files are not overwritten.

    If FOLDER already has handlers or an application, --deploy writes only the files for deployment. FOLDER can then be
    left out: it is the current directory.
    """
    from wsthreads.cli.scaffold import scaffold

    if folder is None and not deploy:
        raise click.MissingParameter(param_hint="'FOLDER'", param_type="argument")
    if app and not deploy:
        raise UsageError("--app is the application to deploy: add --deploy")
    folder = "." if folder is None else folder
    files = scaffold(folder, language, deploy=deploy, app=app)
    for file in files:
        click.echo(file)
    click.echo("\nNext:")
    if os.path.normpath(folder) != ".":
        click.echo(f"  cd {shlex.quote(folder)}")
    if files[0].name != "gunicorn.conf.py":
        handler = files[0].name
        click.echo(f"  wsthreads run {handler} --static public --serve-client --reload")
        click.echo(f"  wsthreads check {handler}")
        click.echo("  python -m pytest    # after: pip install pytest")
    if deploy:
        click.echo("  gunicorn            # after: pip install 'wsthreads[gunicorn]'")
        click.echo("\nThe first lines of the files in deploy say how to use them. Import grafana.json into Grafana.")
