"""Command-line options for the settings of `Config`, one for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any

import click

from wsthreads.config import Config
from wsthreads.errors import ConfigError

__all__ = ["CommandWithSettings", "config_of", "setting_options"]

#: Settings that hold several texts: an option of one each, which can be repeated.
REPEATED_OPTIONS = {"allowed_origins": "--origin", "subprotocols": "--subprotocol"}


def _option_of(setting: Field[Any]) -> str:
    return REPEATED_OPTIONS.get(setting.name) or "--" + setting.name.replace("_", "-")


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with an option for each setting of `Config`; they arrive under the settings' names."""
    for setting in reversed(fields(Config)):
        kind, name, about = setting.metadata["kind"], _option_of(setting), setting.metadata["help"]
        command = click.option(
            f"{name}/--no-{name[2:]}" if kind is bool else name,
            setting.name,
            type=None if kind in (bool, tuple) else kind,
            multiple=kind is tuple,
            default=setting.default,
            show_default=kind is not tuple,
            metavar={tuple: "TEXT", int: "N", float: "SECONDS"}.get(kind),
            help=about[0].upper() + about[1:] + ("; repeatable." if kind is tuple else "."),
        )(command)
    return command


def config_of(settings: Mapping[str, Any]) -> Config:
    """Raises `ConfigError` that names the option, not the setting."""
    try:
        return Config(**settings)
    except ConfigError as error:
        message = str(error)
        for setting in fields(Config):
            if message.startswith(setting.name + " "):
                message = _option_of(setting) + message[len(setting.name) :]
        raise ConfigError(message) from error


class CommandWithSettings(click.Command):
    """Lists the settings apart from the other options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        settings = {setting.name for setting in fields(Config)}
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        for title, wanted in (("Options", False), ("Settings", True)):
            records = [option.get_help_record(ctx) for option in options if (option.name in settings) is wanted]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record])
