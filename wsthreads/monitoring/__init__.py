"""What is logged and counted, and how it is read: log formats, metrics, Prometheus, health."""
