"""A public module: the collector of wsthreads, for your own registry of prometheus-client."""

from wsthreads.monitoring.prometheus import WebSocketCollector

__all__ = ["WebSocketCollector"]
