"""The public module with the formatters and the filter, for the ``logging`` set-up of your own program."""

from wsthreads.monitoring.logs import AddContext, JSONFormatter, TextFormatter

__all__ = ["AddContext", "JSONFormatter", "TextFormatter"]
