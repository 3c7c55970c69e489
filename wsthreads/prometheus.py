"""The public module with the collector, for a prometheus-client registry of your own."""

from wsthreads.monitoring.prometheus import WebSocketCollector

__all__ = ["WebSocketCollector"]
