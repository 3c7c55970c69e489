"""Logs, metrics, Prometheus and health checks."""
