"""Housekeeping threads, the cores of sessions, restarts after errors."""
