"""Where the command's log goes, and what it looks like. A library leaves that to its application."""

from __future__ import annotations

import logging
import re
from typing import IO

__all__ = ["LEVELS", "log_to"]

LEVELS = ("debug", "info", "warning", "error")


class _AccessFormatter(logging.Formatter):
    """Werkzeug's lines have their own time, and colours, which are for terminals only."""

    def __init__(self, colours: bool) -> None:
        super().__init__("%(message)s")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).rstrip("\n")
        return line if self._colours else re.sub(r"\x1b\[[0-9;]*m", "", line)


def log_to(stream: IO[str], level: str, *, polled_path: str) -> None:
    """Log to `stream` whatever is of `level` or above it; requests for `polled_path` only at the level debug.

    Called once, by the program, not by a library.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level.upper())
    access_handler = logging.StreamHandler(stream)
    access_handler.setFormatter(_AccessFormatter(stream.isatty()))
    if level != "debug":
        access_handler.addFilter(lambda record: f"GET {polled_path} " not in record.getMessage())
    access = logging.getLogger("werkzeug")
    access.propagate = False
    access.setLevel(level.upper())
    access.addHandler(access_handler)
