"""The command ``wsthreads``. For each subcommand, a module has its options and its help texts.

Each mistake of the user leads to one line on standard error that begins with ``wsthreads:``, and to an exit status
other than 0. A command imports what it needs when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from wsthreads.cli.commands.check import check
from wsthreads.cli.commands.connect import connect
from wsthreads.cli.commands.kick import kick
from wsthreads.cli.commands.new import new
from wsthreads.cli.commands.publish import publish
from wsthreads.cli.commands.run import run
from wsthreads.cli.streams import complain, discard_output, fill_closed_streams, flush_output, output_failure
from wsthreads.errors import ConfigError, WSThreadsError

__all__ = ["cli", "main"]


def main() -> NoReturn:
    """The function of the console script ``wsthreads``."""
    fill_closed_streams()
    try:
        status = cli.main(prog_name="wsthreads", standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        status = complain(error.format_message(), error.exit_code)
    except WSThreadsError as error:
        status = complain(error, 2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:  # nobody reads the output any more
        discard_output()
        status = 1
    except OSError as error:
        discard_output()
        status = complain(output_failure(error))
    flush_output()
    sys.exit(status)


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    from wsthreads import __version__
    from wsthreads import _native as native
    from wsthreads.threads.gil import python_text

    found = [
        name for name, module in (("_speedups", native.speedups), ("_bridge", native.bridge())) if module is not None
    ]
    built = f"with the C modules {' and '.join(found)}" if found else "pure Python"
    click.echo(f"wsthreads {__version__} (Python {python_text()}, dukpy {version('dukpy')}, {built})")
    context.exit()


class _InOrder(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print versions."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """WebSocket server with rooms, on plain threads, for handlers in JavaScript, TypeScript or Python.

    \b
    To begin:
      wsthreads new chat
      wsthreads run chat/chat.js --static chat/public --serve-client --reload
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (run, new, check, publish, kick, connect):
    cli.add_command(command)
