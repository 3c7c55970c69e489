"""A public module: the formatters and the filter, for the ``logging`` configuration of your own program."""

from wsthreads.monitoring.logs import AddContext, JSONFormatter, TextFormatter

__all__ = ["AddContext", "JSONFormatter", "TextFormatter"]
