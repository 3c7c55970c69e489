"""``wsthreads connect``: a WebSocket client for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from wsthreads.cli.streams import complain
from wsthreads.errors import CloseCode, UsageError, WSThreadsError
from wsthreads.monitoring.logs import escaped

__all__ = ["connect"]

#: How many bytes of a binary message are shown.
SHOWN_BYTES = 64


def _pairs(separator: str, what: str) -> Callable[[click.Context, click.Parameter, Sequence[str]], Any]:
    def split(context: click.Context, option: click.Parameter, texts: Sequence[str]) -> list[tuple[str, str]]:
        pairs = [text.partition(separator) for text in texts]
        for name, found, _ in pairs:
            if not found or not name.strip():
                raise click.BadParameter(f"{what} is written as name{separator}value, not {name!r}")
        return [(name.strip(), value.strip()) for name, _, value in pairs]

    return split


def _not_negative(context: click.Context, option: click.Parameter, value: float) -> float:
    if not value >= 0:  # this also refuses NaN
        raise click.BadParameter(f"it must be 0 or more, not {value:g}")
    return value


@click.command()
@click.argument("url")
@click.option(
    "--param",
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs("=", "a parameter"),
    help="Add a query parameter; repeatable.",
)
@click.option(
    "--header",
    "-H",
    "headers",
    multiple=True,
    metavar="NAME:VALUE",
    callback=_pairs(":", "a header"),
    help="Add a header to the handshake; repeatable.",
)
@click.option("--origin", metavar="URL", help="Send this Origin, as a page of that origin does.")
@click.option("--subprotocol", "subprotocols", multiple=True, metavar="NAME", help="Offer a subprotocol; repeatable.")
@click.option(
    "--wait",
    "wait_s",
    type=float,
    default=1,
    show_default=True,
    metavar="SECONDS",
    callback=_not_negative,
    help="How long to wait for answers after the last line, if the input is not a terminal.",
)
def connect(
    url: str,
    parameters: list[tuple[str, str]],
    headers: list[tuple[str, str]],
    origin: str | None,
    subprotocols: tuple[str, ...],
    wait_s: float,
) -> int:
    """Talk to a WebSocket server from the terminal.

    Sends each line of the input as a message. Prints each message that arrives, after an arrow. Ctrl-D, Ctrl-C and the
    end of the input close the connection. The status is 0 if the close code is 1000 or 1001, or if there is none.
    A user and a password in the URL (ws://user:password@host/) are sent as Basic authentication.

    \b
      wsthreads connect ws://127.0.0.1:5000/ws/chat -p user=ann
    """
    from wsthreads.cli.client import Client, describe_close
    from wsthreads.cli.terminal import converse
    from wsthreads.client.handshake import shown

    if origin is not None:
        headers = [*headers, ("Origin", origin)]
    try:
        client = Client(url, parameters=parameters, headers=headers, subprotocols=subprotocols)
    except UsageError:
        raise
    except WSThreadsError as error:
        return complain(f"cannot connect to {shown(url)}: {error}")
    speaking = f", speaking {client.subprotocol}" if client.subprotocol else ""
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    greeting = f"connected{speaking}" + (" (Ctrl-D closes)" if is_terminal else "")
    code, reason = converse(
        client,
        0,  # the file descriptor of the standard input
        _show,
        wait_s=0 if is_terminal else wait_s,
        on_start=lambda: click.echo(greeting, err=True),
    )
    click.echo(f"closed: {describe_close(code, reason)}", err=True)
    return 0 if code in (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS) else 1


def _show(message: str | bytes) -> None:
    """Print a message. Characters that would control the terminal are escaped."""
    if isinstance(message, bytes):
        more = " …" if len(message) > SHOWN_BYTES else ""
        message = f"({len(message)} bytes) {message[:SHOWN_BYTES].hex(' ')}{more}"
    elif sys.stdout.isatty():
        message = escaped(message).replace("\n", "\n  ")
    encoding = sys.stdout.encoding or "utf-8"
    arrow = "←" if "←".encode(encoding, "replace") != b"?" else "<"
    click.echo(f"{arrow} {message}".encode(encoding, "backslashreplace"))
