"""``wsthreads run``: serves handlers on a port."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from wsthreads.cli.options import (
    CommandWithSections,
    config_of,
    env_file_option,
    env_of,
    module_option,
    modules_of,
    path_option,
    setting_options,
)
from wsthreads.cli.streams import flush_files, output_is_stuck
from wsthreads.config import REDIS_VARIABLE, dashboard_token_of
from wsthreads.errors import CloseCode, UsageError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import FORMAT_VARIABLE, FORMATS, LEVELS, log_to

if TYPE_CHECKING:
    from wsthreads.app import WebSocketApp
    from wsthreads.cli.targets import Target
    from wsthreads.config import Config
    from wsthreads.servers.serving import Server

__all__ = ["run"]

log = get_logger(__name__)

#: The environment variables that pass the port and the token on to the command when it restarts.
RESTART_PORT = "_WSTHREADS_RESTART_PORT"
RESTART_TOKEN = "_WSTHREADS_RESTART_TOKEN"

#: The longest wait for the buffers of files at the end of the process.
FLUSH_TIMEOUT_S = 0.5

#: The longest wait for our own threads that are about to end.
LAST_THREADS_S = 0.2


@click.command(
    cls=CommandWithSections,
    epilog="A number in parentheses is the close code or the HTTP status that a client gets beyond the limit.",
)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 means all addresses.",
)
@click.option(
    "--port", type=int, metavar="N", default=5000, show_default=True, help="Port to listen on; 0 means any free port."
)
@path_option
@env_file_option
@module_option
@click.option("--cert", metavar="FILE", help="Serve https and wss with the certificate in this PEM file.")
@click.option("--key", metavar="FILE", help="Private key of the certificate, if it is in another file.")
@click.option(
    "--static", metavar="DIRECTORY", help="Also serve the files in this directory; its index.html is then at /."
)
@click.option(
    "--reload",
    is_flag=True,
    help="Load changed files again. Sessions of scripts stay; a Python handler restarts the server (1012).",
)
@click.option(
    "--redis",
    envvar=REDIS_VARIABLE,
    metavar="URL",
    show_envvar=True,
    help="Share rooms with all processes that use this Redis, such as redis://localhost.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    metavar="LEVEL",
    default="info",
    show_default=True,
    help="Lowest level to log: debug, info, warning or error.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    default="text",
    show_default=True,
    envvar=FORMAT_VARIABLE,
    show_envvar=True,
    help="text for people, or json with one object a line.",
)
@setting_options
def run(
    targets: tuple[str, ...],
    host: str,
    port: int,
    path: str | None,
    env_file: str | None,
    modules: tuple[str, ...],
    cert: str | None,
    key: str | None,
    static: str | None,
    redis: str | None,
    reload: bool,
    log_level: str,
    log_format: str,
    **settings: Any,
) -> int:
    """Serve handlers on a port, for development.

    TARGET is a .js, .mjs, .ts or .py file, which is served at /ws/<name>, or a directory of such files. A page about
    the server is at /, or at /_wsthreads/ if --static has an index.html.

    Ctrl-C closes every session with 1001 and exits with status 0. A second Ctrl-C cuts the sessions off.
    """
    from wsthreads.threads.garbage import postpone_full_collections

    # only in a process that is ours alone; before the imports, because these make many objects
    postpone_full_collections()

    from wsthreads.cli.announcement import Announcement
    from wsthreads.cli.targets import create_app, find_targets
    from wsthreads.dashboard import PREFIX, Dashboard
    from wsthreads.servers.serving import Server
    from wsthreads.servers.tls import server_context
    from wsthreads.threads.malloc import limit_arenas

    if not host:  # an empty host would mean all addresses, and a shell variable may be empty by mistake
        raise UsageError("--host is empty; use 0.0.0.0 for all addresses")
    config = config_of(settings)
    limit_arenas()  # only in a process that is ours alone
    if config.cpu_affinity is None:
        config = replace(config, cpu_affinity=True)
    if config.serve_health is None:
        config = replace(config, serve_health=True)
    log_to(sys.stderr, log_level, quiet_below=PREFIX, form=log_format)
    if key is not None and cert is None:
        raise UsageError("--key is the key of a certificate: add --cert")
    ssl_context = None if cert is None else server_context(cert, key)
    restarted = RESTART_PORT in os.environ
    restart_port = os.environ.pop(RESTART_PORT, "")
    port = port or (int(restart_port) if restart_port.isdecimal() else 0)
    token = dashboard_token_of(config)
    made_token = "" if token else _make_token(host, config)
    dashboard = Dashboard(token or made_token, logger="", reloads=reload)
    if reload:
        # Otherwise, Python would use old bytecode for a file that changes within a second and keeps its size.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for the process that runs wsthreads check
    found = find_targets(targets, path)
    env = None if env_file is None else env_of(env_file)
    app = create_app(
        *targets,
        wsgi_app=dashboard.lead_here,
        static=static,
        path=path,
        redis=redis or None,
        config=config,
        dashboard=dashboard,
        env=env,
        modules=modules_of(modules),
    )
    try:
        server = Server(app, host, port, ssl_context=ssl_context)
        app.connect_broker()
        announce = Announcement(
            app,
            server,
            found,
            static=static,
            made_token=made_token,
            to_log=log_format != "text",
            restarted=restarted,
        )
        if reload:
            options = {"--path": path, "--env-file": env_file}
            check_arguments = [part for option in options.items() if option[1] for part in option if part]
            check_arguments += [part for host in config.allow_net for part in ("--allow-net", host)]
            check_arguments += [part for module in modules for part in ("--module", module)]
            check_arguments += ["--", *targets]
            return _serve_with_reload(
                app, server, lambda: find_targets(targets, path), check_arguments, announce, made_token
            )
        return _end(server.run(announce))
    finally:
        # ends the threads of scripts if the server could not be made; otherwise, they have ended before
        app.shutdown(0)


def _make_token(host: str, config: Config) -> str:
    """Returns a token for the page if other machines can reach it, otherwise an empty string."""
    from secrets import token_urlsafe

    from wsthreads.servers.serving import is_loopback

    token = os.environ.pop(RESTART_TOKEN, "")
    return "" if is_loopback(host) and not config.trusted_proxies else token or token_urlsafe(16)


def _end(status: int) -> int:
    """Return `status`, or end the process with this status in cases where Python's own end could hang.

    Python would wait for somebody who reads the output. Without a GIL, Python stops daemon threads at any point, and
    could then wait for a lock that such a thread holds, for example the lock of stderr. So if there are such threads,
    this function first does what Python would do at its end: it waits for threads that are not daemons, calls the
    functions of `atexit`, and writes the buffers of open files.
    """
    from wsthreads.threads.exit_blockers import report_exit_blockers
    from wsthreads.threads.gil import has_gil

    if output_is_stuck():
        os._exit(status)
    is_safe = has_gil() or not _has_daemon_threads()
    report_exit_blockers()
    if is_safe:
        return status
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        flushing = Thread(target=flush_files, daemon=True)
        flushing.start()
        flushing.join(FLUSH_TIMEOUT_S)
        os._exit(status)


def _has_daemon_threads() -> bool:
    """Whether daemon threads still run. Waits a moment for those that are about to end."""
    until = monotonic() + LAST_THREADS_S
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread():
            thread.join(max(0.0, until - monotonic()))
            if thread.is_alive():
                return True
    return False


def _serve_with_reload(
    app: WebSocketApp,
    server: Server,
    find: Callable[[], Sequence[Target]],
    check_arguments: Sequence[str],
    announce: Callable[[], None],
    token: str,
) -> int:
    """Serve until a signal comes.

    For a restart, this does not return, because the process then runs the same command again.

    `announce` is called after the watching of the files has begun, so that no change after the announcement is missed.
    """
    from wsthreads.cli.reloader import Reloader

    restart = False

    def ask_for_restart() -> None:
        nonlocal restart
        restart = True
        server.request_stop(CloseCode.SERVICE_RESTART, "the server restarts with new code")

    reloader = Reloader(app, find, ask_for_restart, check_arguments=check_arguments)
    reloader.start()
    status = server.run(announce)
    reloader.stop()
    if restart and status == 0:
        log.info("restarting")
        sys.stdout.flush()
        sys.stderr.flush()
        os.environ[RESTART_PORT] = str(server.port)  # the actual port, which differs from the option with --port 0
        os.environ[RESTART_TOKEN] = token  # so that pages that are open can connect again
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return _end(status)
