"""``wsthreads new``: makes a folder with a handler to start from, and the files to deploy it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from wsthreads.cli.options import config_of
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
@click.option("--env-file", default="", metavar="FILE", help="With --deploy: the names that scripts import as env.")
@click.option(
    "--allow-net",
    metavar="HOST",
    multiple=True,
    help="With --deploy: hosts that scripts may fetch from; repeatable.",
)
def new(
    folder: str | None, language: str | None, deploy: bool, app: str, env_file: str, allow_net: tuple[str, ...]
) -> None:
    """Make a folder with a handler to start from.

    The handler is a chat that has the folder's name. The folder also gets a page, a test, and for JavaScript and
    TypeScript the types of the API, for your editor. Existing files are not overwritten.

    If FOLDER already has handlers or an application, --deploy writes only the files for deployment. FOLDER can then be
    left out: it is the current directory.
    """
    from wsthreads.cli.deployment import needs_of
    from wsthreads.cli.scaffold import scaffold

    if folder is None and not deploy:
        raise click.MissingParameter(param_hint="'FOLDER'", param_type="argument")
    if app and not deploy:
        raise UsageError("--app is the application to deploy: add --deploy")
    if (env_file or allow_net) and not deploy:
        raise UsageError("--env-file and --allow-net are only for the files of --deploy: add --deploy")
    config_of({"allow_net": allow_net})
    folder = "." if folder is None else folder
    files = scaffold(folder, language, deploy=deploy, app=app, env_file=env_file, allow_net=allow_net)
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
        extras = "fetch,gunicorn" if allow_net else "gunicorn"
        click.echo(f"  gunicorn            # after: pip install 'wsthreads[{extras}]'")
        for used, setting in needs_of(Path(folder), app=app, env_file=env_file, allow_net=allow_net):
            click.echo(f"\nA script uses {used}: add {setting} to the settings in gunicorn.conf.py.")
        click.echo("\nThe first lines of the files in deploy say how to use them. Import grafana.json into Grafana.")
