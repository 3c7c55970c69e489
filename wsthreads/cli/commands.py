"""The command ``wsthreads``: parses, wires, runs.

Every mistake of the user's is one line on standard error that begins with ``wsthreads:``, and a status that is not 0.
Only what a command needs is imported, in the command, so that ``--help`` is quick. Most of its lines are options and
their texts: all that a user can type is in this file, and in `options`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from wsthreads.cli.options import CommandWithSections, config_of, setting_options
from wsthreads.cli.streams import discard_output, fill_closed_streams, flush_output, output_failure, output_is_stuck
from wsthreads.config import DASHBOARD_TOKEN_VARIABLE, REDIS_VARIABLE, dashboard_token_of
from wsthreads.errors import BrokerError, CloseCode, ConfigError, UsageError, WSThreadsError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import FORMAT_VARIABLE, FORMATS, LEVELS, escaped, log_to

if TYPE_CHECKING:
    from wsthreads.app import WebSocketApp
    from wsthreads.cli.targets import Target
    from wsthreads.config import Config
    from wsthreads.servers.serving import Server

__all__ = ["main"]

log = get_logger(__name__)

#: Environment variables that tell a restarted command which free port it had found, and which token it had made.
RESTART_PORT = "_WSTHREADS_RESTART_PORT"
RESTART_TOKEN = "_WSTHREADS_RESTART_TOKEN"


def main() -> NoReturn:
    """The console script."""
    fill_closed_streams()
    try:
        status = cli.main(prog_name="wsthreads", standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        status = _complain(error.format_message(), error.exit_code)
    except WSThreadsError as error:
        status = _complain(error, 2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:  # nobody reads our output any more
        discard_output()
        status = 1
    except OSError as error:
        discard_output()
        status = _complain(output_failure(error))
    flush_output()
    sys.exit(status)


def _complain(complaint: object, status: int = 1) -> int:
    with suppress(OSError):  # nobody reads it, or the disk is full; the status tells
        click.echo(f"wsthreads: {escaped(' '.join(str(complaint).split()))}", err=True)
    return status


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version
    from platform import python_version

    from wsthreads import __version__
    from wsthreads import _native as native

    found = [
        name for name, module in (("_speedups", native.speedups), ("_bridge", native.bridge())) if module is not None
    ]
    built = f"with the C modules {' and '.join(found)}" if found else "pure Python"
    click.echo(f"wsthreads {__version__} (Python {python_version()}, dukpy {version('dukpy')}, {built})")
    context.exit()


class _InOrder(click.Group):
    """Lists its commands as they stand in this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show versions."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """WebSocket server with rooms, on plain threads: handlers in JavaScript, TypeScript or Python.

    \b
    To begin with:
      wsthreads new chat
      wsthreads run chat/chat.js --static chat/public --serve-client --reload
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


# wsthreads run


@cli.command(
    cls=CommandWithSections,
    epilog="A number in parentheses is the close code, or the HTTP status, of a client that goes past the limit.",
)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True,
              help="Address to listen at; 0.0.0.0 for all.")
@click.option("--port", type=int, metavar="N", default=5000, show_default=True,
              help="Port to listen at; 0 for any that is free.")
@click.option("--path", metavar="PATH", help="Serve a single file at this path in place of /ws/<name>.")
@click.option("--cert", metavar="FILE", help="Speak TLS (https, wss) with the certificate in this PEM file.")
@click.option("--key", metavar="FILE", help="Its private key, where that is in another file.")
@click.option("--static", metavar="DIRECTORY", help="Serve the files in there, too; its index.html is then at /.")
@click.option("--reload", is_flag=True,
              help="Follow changes of the files: scripts are swapped and sessions stay, for Python it restarts (1012).")
@click.option("--redis", envvar=REDIS_VARIABLE, metavar="URL", show_envvar=True,
              help="Share rooms with all processes that use this Redis, such as redis://localhost.")
@click.option("--log-level", type=click.Choice(LEVELS), metavar="LEVEL", default="info", show_default=True,
              help="Log what is of this level or above: debug, info, warning or error.")
@click.option("--log-format", type=click.Choice(FORMATS), metavar="FORMAT", default="text", show_default=True,
              envvar=FORMAT_VARIABLE, show_envvar=True, help="text, for people, or json, with an object a line.")
@setting_options
def run(
    targets: tuple[str, ...],
    host: str,
    port: int,
    path: str | None,
    cert: str | None,
    key: str | None,
    static: str | None,
    redis: str | None,
    reload: bool,
    log_level: str,
    log_format: str,
    **settings: Any,
) -> int:
    """Serve handlers on a port.

    TARGET is a .js, .mjs, .ts or .py file, which is served at /ws/<name>, or a directory of such files. Beside them
    there is a page about the server, at / or, if --static has an index.html, at /_wsthreads/.

    Ctrl-C closes every session with 1001 and ends with status 0; pressed once more, it cuts them off.
    """
    from wsthreads.cli.checks import remarks_on
    from wsthreads.cli.targets import create_app, find_targets
    from wsthreads.dashboard import PREFIX, Dashboard
    from wsthreads.servers.serving import Server
    from wsthreads.servers.tls import server_context
    from wsthreads.threads.exit_blockers import report_exit_blockers
    from wsthreads.threads.malloc import limit_arenas

    if not host:  # an empty variable of the shell's is not to let in everybody
        raise UsageError("--host is empty; 0.0.0.0 listens at all addresses")
    config = config_of(settings)
    limit_arenas()  # the process is our own
    if config.cpu_affinity is None:
        config = replace(config, cpu_affinity=True)
    if config.serve_health is None:
        config = replace(config, serve_health=True)
    log_to(sys.stderr, log_level, quiet_below=PREFIX, form=log_format)
    if key is not None and cert is None:
        raise UsageError("a key is of no use without its certificate: add --cert")
    ssl_context = None if cert is None else server_context(cert, key)
    restarted = RESTART_PORT in os.environ
    restart_port = os.environ.pop(RESTART_PORT, "")
    port = port or (int(restart_port) if restart_port.isdecimal() else 0)
    token = dashboard_token_of(config)
    made_token = "" if token else _token_for(host, config)
    dashboard = Dashboard(token or made_token, logger="", reloads=reload)
    if reload:
        # Python takes bytecode for that of a file which was changed in the same second, and has the same size.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for the process that checks a change
    found = find_targets(targets, path)
    app = create_app(
        *targets,
        wsgi_app=dashboard.lead_here,
        static=static,
        path=path,
        redis=redis or None,
        config=config,
        dashboard=dashboard,
    )
    try:
        server = Server(app, host, port, ssl_context=ssl_context)
        app.connect_broker()

        def announce() -> None:
            try:
                _announce(app, server, static, click.echo if log_format == "text" else log.info)
                if made_token and log_format == "text":
                    page = f"{server.url}{PREFIX}#token={made_token}"
                    click.echo(f"The page needs a token, as others could reach it: {page}")
            except OSError as error:  # it serves without having said so
                discard_output()
                log.warning("serving at %s; %s", server.url, output_failure(error))
            if made_token and log_format != "text":  # a token is not for logs
                log.info("the page needs a token, as others could reach it: set %s", DASHBOARD_TOKEN_VARIABLE)
            if restarted:
                log.info("restarted with new code", extra={"kind": "reload"})
            for target in found:
                for remark in remarks_on(target, app.endpoint(target.path).handler.hooks):
                    log.warning("%s", remark)

        if not reload:
            announce()
            status = _served(server)
            report_exit_blockers()
            return status
        check_arguments = [*(["--path", path] if path else []), "--", *targets]
        return _run_with_reload(app, server, lambda: find_targets(targets, path), check_arguments, announce, made_token)
    finally:
        app.shutdown(0)  # has been done, unless the server could not be made: a script's thread must not stay


def _served(server: Server) -> int:
    """Serve until a signal. Does not return where an output that nobody reads would hold up the end of the process."""
    status = server.run()
    if output_is_stuck():
        os._exit(status)
    return status


def _token_for(host: str, config: Config) -> str:
    """A token made for the page, where others than this machine's users could reach it; else none."""
    from secrets import token_urlsafe

    from wsthreads.servers.serving import is_loopback

    token = os.environ.pop(RESTART_TOKEN, "")
    return "" if is_loopback(host) and not config.trusted_proxies else token or token_urlsafe(16)


def _run_with_reload(
    app: WebSocketApp,
    server: Server,
    find: Callable[[], Sequence[Target]],
    check_arguments: Sequence[str],
    announce: Callable[[], None],
    token: str,
) -> int:
    """Never returns when a restart is due: becomes the same command again.

    `announce` is called once the files are watched, so that a change by whoever waits for it is seen.
    """
    from wsthreads.cli.reloader import Reloader
    from wsthreads.threads.exit_blockers import report_exit_blockers

    restart = False

    def ask_for_restart() -> None:
        nonlocal restart
        restart = True
        server.request_stop(CloseCode.SERVICE_RESTART, "the server restarts with new code")

    reloader = Reloader(app, find, ask_for_restart, check_arguments=check_arguments)
    announce()
    reloader.start()
    status = _served(server)
    reloader.stop()
    if restart and status == 0:
        log.info("restarting")
        sys.stdout.flush()
        sys.stderr.flush()
        os.environ[RESTART_PORT] = str(server.port)  # what was any free port stays the same one
        os.environ[RESTART_TOKEN] = token  # and whoever has the page open still may
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    report_exit_blockers()
    return status


def _announce(app: WebSocketApp, server: Server, static: str | None, say: Callable[[str], None]) -> None:
    """Say where it listens, and what is there. The port is bound already: whoever reads this can connect."""
    from wsthreads.dashboard import PREFIX, function_names

    has_index = static is not None and os.path.isfile(os.path.join(static, "index.html"))
    served = [(f"{server.url}/", f"the files in {static}")] if static is not None else []
    served.append((server.url + (PREFIX if has_index else "/"), "the page about this server"))
    for endpoint in app.endpoints:
        functions = ", ".join(function_names(endpoint))
        served.append((server.ws_url + endpoint.path, f"{endpoint.handler.name}: {functions}"))
    width = max(len(url) for url, _ in served)
    say(f"Listening on {' and '.join([server.url, *_other_urls(server)])} (Ctrl-C stops)")
    for url, what in served:
        say(f"  {url:{width}}  {what}")
    sys.stdout.flush()


def _other_urls(server: Server) -> list[str]:
    """Where other machines reach a server that listens at all addresses."""
    import socket

    from werkzeug.serving import get_interface_ip

    if server.host not in ("0.0.0.0", "::", ""):
        return []
    address = get_interface_ip(socket.AF_INET)
    return [] if address.startswith("127.") else [f"{server.url.partition(':')[0]}://{address}:{server.port}"]


# wsthreads new


@cli.command()
@click.argument("folder")
@click.option("--typescript", "language", flag_value="typescript",
              help="Write it in TypeScript, in place of JavaScript.")
@click.option("--python", "language", flag_value="python", help="Write it in Python, in place of JavaScript.")
def new(folder: str, language: str | None) -> None:
    """Make a folder with a handler to start from.

    The handler is a chat, named as the folder; beside it are a page, a test, and for JavaScript and TypeScript the
    types of what a handler sees, for your editor. Nothing that is there is written over.
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


# wsthreads check


@cli.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--path", metavar="PATH", help="The path that a single file is served at.")
def check(targets: tuple[str, ...], path: str | None) -> int:
    """Load handlers without serving them.

    Lists the functions of each, and says what is wrong with it, with file, line and column, and what was perhaps meant.
    Python files are run, as they are by an import. The status is 1 if one of them cannot be served.
    """
    from wsthreads.cli.checks import all_logs_hidden, check_target, console_shown
    from wsthreads.cli.targets import find_targets

    status = 0
    for target in find_targets(targets, path):
        try:
            with console_shown(sys.stderr) if target.is_script else all_logs_hidden():
                finding = check_target(target)
        except WSThreadsError as error:
            status = _complain(error)
            continue
        click.echo(f"{target.file}  {target.path}  {', '.join(finding.functions)}")
        for remark in finding.remarks:
            click.echo(remark)
    return status


# wsthreads publish


@cli.command()
@click.argument("room")
@click.argument("message")
@click.option("--endpoint", required=True, metavar="PATH", help="The path of the room's endpoint, such as /ws/chat.")
@click.option("--redis", envvar=REDIS_VARIABLE, metavar="URL", show_envvar=True, required=True,
              help="The Redis that the servers use.")
@click.option("--prefix", default="wsthreads", show_default=True, help="The prefix of the servers' keys in Redis.")
def publish(room: str, message: str, endpoint: str, redis: str, prefix: str) -> int:
    """Broadcast to a room, on all servers of a Redis.

    MESSAGE may be - for what is on the standard input. The status is 0 once Redis has the message, whether or not the
    room has members.

    \b
      wsthreads publish lobby 'closing in 5 minutes' --endpoint /ws/chat
    """
    from wsthreads.brokers.redis import RedisBroker

    if message == "-":
        message = _standard_input()
    try:
        RedisBroker(redis, prefix=prefix).room(endpoint, room).broadcast(message)
    except BrokerError as error:
        return _complain(f"not published: {error}")
    return 0


def _standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("- means the standard input, which is closed")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the standard input is no text in UTF-8: {error}") from error


# wsthreads connect


def _pairs(separator: str, what: str) -> Callable[[click.Context, click.Parameter, Sequence[str]], Any]:
    def split(context: click.Context, option: click.Parameter, texts: Sequence[str]) -> list[tuple[str, str]]:
        pairs = [text.partition(separator) for text in texts]
        for name, found, _ in pairs:
            if not found or not name.strip():
                raise click.BadParameter(f"{what} is written as name{separator}value, not {name!r}")
        return [(name.strip(), value.strip()) for name, _, value in pairs]

    return split


def _not_negative(context: click.Context, option: click.Parameter, value: float) -> float:
    if not value >= 0:  # nor NaN
        raise click.BadParameter(f"it must be 0 or more, not {value:g}")
    return value


@cli.command()
@click.argument("url")
@click.option("--param", "-p", "parameters", multiple=True, metavar="NAME=VALUE", callback=_pairs("=", "a parameter"),
              help="Add a query parameter, repeatable.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", callback=_pairs(":", "a header"),
              help="Add a header to the handshake, repeatable.")
@click.option("--origin", metavar="URL", help="Claim to be a page of this origin.")
@click.option("--subprotocol", "subprotocols", multiple=True, metavar="NAME", help="Offer a subprotocol, repeatable.")
@click.option("--wait", "wait_s", type=float, default=1, show_default=True, metavar="SECONDS", callback=_not_negative,
              help="When the input is not a terminal: how long to wait for answers after its last line.")
def connect(
    url: str,
    parameters: list[tuple[str, str]],
    headers: list[tuple[str, str]],
    origin: str | None,
    subprotocols: tuple[str, ...],
    wait_s: float,
) -> int:
    """Talk to a WebSocket server from the terminal.

    Each line of the input is sent as a message, each message that arrives is printed behind an arrow. Ctrl-D, Ctrl-C
    and the end of the input close the connection. The status is 0 if it was closed with 1000, 1001 or no code.
    A user and a password in the URL (ws://user:password@host/) are sent as Basic authentication.

    \b
      wsthreads connect ws://127.0.0.1:5000/ws/chat -p user=ann
    """
    from wsthreads.cli.terminal import Client, converse, describe_close, shown

    if origin is not None:
        headers = [*headers, ("Origin", origin)]
    try:
        client = Client(url, parameters=parameters, headers=headers, subprotocols=subprotocols)
    except UsageError:
        raise
    except WSThreadsError as error:
        return _complain(f"cannot connect to {shown(url)}: {error}")
    speaking = f", speaking {client.subprotocol}" if client.subprotocol else ""
    terminal = sys.stdin is not None and sys.stdin.isatty()
    greeting = f"connected{speaking}" + (" (Ctrl-D closes)" if terminal else "")
    code, reason = converse(
        client,
        0,  # the standard input
        _show,
        wait_s=0 if terminal else wait_s,
        on_start=lambda: click.echo(greeting, err=True),
    )
    click.echo(f"closed: {describe_close(code, reason)}", err=True)
    return 0 if code in (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS) else 1


def _show(message: str | bytes) -> None:
    """Print a message; what would steer a terminal only as an escape."""
    if isinstance(message, bytes):
        message = f"({len(message)} bytes) {message[:64].hex(' ')}{' …' if len(message) > 64 else ''}"
    elif sys.stdout.isatty():
        message = escaped(message).replace("\n", "\n  ")
    encoding = sys.stdout.encoding or "utf-8"
    arrow = "←" if "←".encode(encoding, "replace") != b"?" else "<"
    click.echo(f"{arrow} {message}".encode(encoding, "backslashreplace"))
