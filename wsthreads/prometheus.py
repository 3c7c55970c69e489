"""The collector for your own registry of prometheus-client, under the name that your program writes."""

from wsthreads.monitoring.prometheus import WebSocketCollector

__all__ = ["WebSocketCollector"]
