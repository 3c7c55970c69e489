"""The options of the command line: one for each setting of `Config`, options of several commands, and grouped help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from wsthreads.config import REDIS_VARIABLE, Config
from wsthreads.errors import ConfigError, UsageError

__all__ = [
    "CommandWithSections",
    "config_of",
    "endpoint_option",
    "env_file_option",
    "env_of",
    "module_option",
    "modules_of",
    "path_option",
    "prefix_option",
    "servers_redis_option",
    "setting_options",
]

#: Settings that have several values. The option for each takes one value, and can be repeated.
REPEATED_OPTIONS = {"allowed_origins": "--origin", "subprotocols": "--subprotocol", "allow_net": "--allow-net"}


#: What the help shows as the value of a setting that is text.
_METAVARS = {
    "allowed_origins": "URL",
    "subprotocols": "NAME",
    "allow_net": "HOST",
    "dashboard_token": "TEXT",
    "metrics_token": "TEXT",
}

#: The width of the first column of the help, the same in all sections.
COLUMN_WIDTH = 31

#: The sections in the help of ``wsthreads run``, with their options.
SECTIONS = (
    ("Serving", (
        "host", "port", "path", "static", "serve_client", "reload", "cert", "key", "trusted_proxies", "cpu_affinity",
        "shutdown_timeout_s",
    )),
    ("Rooms", (
        "redis", "max_rooms_per_session", "max_room_name_chars", "presence_interval_s", "presence_grace_s",
        "max_presence_bytes", "max_room_bytes", "room_keep_s",
        "history_messages", "history_s", "max_history_bytes", "room_threads", "max_post_bytes", "post_timeout_s",
    )),
    ("Logging and monitoring", (
        "log_level", "log_format", "serve_metrics", "metrics_token", "serve_health", "dashboard_token",
    )),
    ("Who may connect", (
        "allowed_origins", "subprotocols", "max_sessions", "max_sessions_per_address", "handshake_timeout_s",
        "max_handshake_bytes",
    )),
    ("Messages", (
        "max_message_bytes", "max_fragments", "message_timeout_s", "max_messages_per_s", "max_control_frames_per_s",
        "accept_binary", "compression",
    )),
    ("Slow and silent clients", (
        "max_outbox_bytes", "send_timeout_s", "ping_interval_s", "ping_timeout_s", "idle_timeout_s", "close_timeout_s",
    )),
    ("Lost connections and requests", (
        "resume_s", "max_resume_bytes", "max_suspended_sessions", "request_timeout_s", "max_pending_requests",
    )),
    ("Scripts", (
        "env_file", "modules", "allow_net", "max_fetch_bytes", "script_timeout_s", "script_wait_s", "script_threads",
        "scripts_without_deadline",
    )),
)  # fmt: skip

# For commands that load handlers
path_option = click.option("--path", metavar="PATH", help="Path of a single handler, in place of /ws/<name>.")
env_file_option = click.option(
    "--env-file", metavar="FILE", help="Scripts may import the names in this file of lines NAME=value, as env."
)
module_option = click.option(
    "--module",
    "modules",
    metavar="NAME=FILE",
    multiple=True,
    help="Scripts may import the functions of this Python file by this name; repeatable.",
)

# For commands that reach servers through Redis
endpoint_option = click.option(
    "--endpoint", required=True, metavar="PATH", help="Path of the endpoint, such as /ws/chat."
)
servers_redis_option = click.option(
    "--redis",
    envvar=REDIS_VARIABLE,
    metavar="URL",
    show_envvar=True,
    required=True,
    help="The Redis that the servers use.",
)
prefix_option = click.option(
    "--prefix", default="wsthreads", show_default=True, help="Prefix of the servers' keys in Redis."
)


def _option_of(setting: Field[Any]) -> str:
    return REPEATED_OPTIONS.get(setting.name) or "--" + setting.name.replace("_", "-")


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with an option for each setting of `Config`. The arguments have the names of the settings."""
    for setting in reversed(fields(Config)):
        kind, name, about = setting.metadata["kind"], _option_of(setting), setting.metadata["help"]
        command = click.option(
            f"{name}/--no-{name[2:]}" if kind is bool else name,
            setting.name,
            cls=_Option,
            type=None if kind in (bool, tuple) else kind,
            multiple=kind is tuple,
            default=setting.default,
            metavar=_METAVARS.get(setting.name) or {int: "N", float: "SECONDS"}.get(kind),
            help=about[0].upper() + about[1:] + ("; repeatable." if kind is tuple else "."),
        )(command)
    return command


class _Option(click.Option):
    """An option whose help shows a flag as ``--[no-]reload``, and a short form of the default."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        name, about = record
        if self.secondary_opts:
            name = f"--[no-]{self.opts[0][2:]}"
        default = self.default
        if isinstance(default, bool):
            about += f"  [default: {'yes' if default else 'no'}]"
        elif isinstance(default, (int, float)):
            about += f"  [default: {default if isinstance(default, int) else format(default, 'g')}]"
        return name, about


def config_of(settings: Mapping[str, Any]) -> Config:
    """Returns the `Config` with these settings. Raises `ConfigError`, whose text names the option."""
    try:
        return Config(**settings)
    except ConfigError as error:
        message = str(error)
        for setting in fields(Config):
            if message.startswith(setting.name + " "):
                message = _option_of(setting) + message[len(setting.name) :]
        raise ConfigError(message) from error


def env_of(path: str) -> dict[str, str]:
    """Returns the names and values in the file of ``--env-file``.

    Raises `UsageError`, whose text has the number of the line, but not the value.
    """
    from wsthreads.javascript.environment import read_env_file  # only an app with scripts needs it

    return read_env_file(path)


def modules_of(options: Iterable[str]) -> dict[str, ModuleType]:
    """Returns the modules of the options ``--module NAME=FILE``.

    Raises `UsageError` for an invalid option, and `ScriptError` if a file does not load.
    """
    from wsthreads.sessions.python_files import load_module

    modules: dict[str, ModuleType] = {}
    for option in options:
        name, equals, file = option.partition("=")
        if not name or not equals or not file:
            raise UsageError(f"--module takes a name and a file, as in store=store.py, not {option!r:.80}")
        try:
            modules[name] = load_module(Path(file))
        except OSError as error:
            raise UsageError(f"--module {option}: {error.strerror or error}") from error
    return modules


class CommandWithSections(click.Command):
    """A command whose help lists the options under the titles in `SECTIONS`, and all other options at the end."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = {option.name or "": option for option in self.get_params(ctx) if isinstance(option, click.Option)}
        sections = [(title, [options.pop(name) for name in names if name in options]) for title, names in SECTIONS]
        for title, listed in [*sections, ("Other", [*options.values()])]:
            records = filter(None, [option.get_help_record(ctx) for option in listed])
            rows = [(name.ljust(COLUMN_WIDTH), about) for name, about in records]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=COLUMN_WIDTH)
