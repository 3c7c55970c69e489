"""The formatters and the filter for the ``logging`` of your own program, under the name that it writes."""

from wsthreads.monitoring.logs import AddContext, JSONFormatter, TextFormatter

__all__ = ["AddContext", "JSONFormatter", "TextFormatter"]
