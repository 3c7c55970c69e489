"""``wsthreads check``: loads handlers without serving them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from wsthreads.cli.options import config_of, env_file_option, env_of, module_option, modules_of, path_option
from wsthreads.cli.streams import complain
from wsthreads.errors import UsageError, WSThreadsError

__all__ = ["check"]


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@path_option
@click.option("--types", is_flag=True, help="Write types for editors beside the scripts and the Python files.")
@env_file_option
@module_option
@click.option("--allow-net", metavar="HOST", multiple=True, help="Hosts that scripts may fetch from; repeatable.")
@click.option(
    "--resume-s",
    metavar="SECONDS",
    type=float,
    default=0.0,
    help="As for run. Without it, check warns that onSuspend and onResume are never called.",
)
def check(
    targets: tuple[str, ...],
    path: str | None,
    types: bool,
    env_file: str | None,
    modules: tuple[str, ...],
    allow_net: tuple[str, ...],
    resume_s: float,
) -> int:
    """Load handlers without serving them.

    Prints the functions of each handler. For a mistake, it prints the file, the line and the column, and suggests a
    name if one is misspelled. Python files are executed, as by an import. The status is 1 if a handler cannot be
    served.

    --types writes a wsthreads.d.ts beside a script, a jsconfig.json or tsconfig.json if there is neither, and a .d.ts
    beside each Python file that a script imports.
    """
    from wsthreads.cli.checks import all_logs_hidden, check_target, console_shown
    from wsthreads.cli.scaffold import editor_files
    from wsthreads.cli.targets import find_targets

    status = 0
    env = None if env_file is None else env_of(env_file)
    config = config_of({"allow_net": allow_net, "resume_s": resume_s})
    provided = modules_of(modules)
    for target in find_targets(targets, path):
        try:
            with console_shown(sys.stderr) if target.is_script else all_logs_hidden():
                finding = check_target(target, env=env, config=config, modules=provided)
        except WSThreadsError as error:
            status = complain(error)
            continue
        click.echo(f"{target.file}  {target.path}  {', '.join(finding.functions)}")
        for remark in finding.remarks:
            click.echo(remark)
        files = {Path(file): text for file, text in finding.declarations.items()}
        if types and target.is_script:
            files = editor_files(Path(target.file)) | files
        for file, text in files.items() if types else ():
            try:
                file.write_text(text, encoding="utf-8")
            except OSError as error:
                status = complain(UsageError(f"{file}: {error.strerror}"))
            else:
                click.echo(f"{file}  written")
    return status
