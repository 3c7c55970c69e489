"""gunicorn, in this folder, takes it from here: the application, the port, the number of sessions."""

import os
from pathlib import Path

wsgi_app = "app:app"
bind = os.environ.get("BIND", "127.0.0.1:8000")
worker_class = "wsthreads.gunicorn.ThreadWorker"
workers = int(os.environ.get("WORKERS", "1"))
threads = 500  # for each worker: a session holds a thread, and two are left for HTTP
worker_connections = threads + 100  # the 100 are for those that wait, or are kept alive
graceful_timeout = 10  # seconds that sessions have to end, at a stop or a restart
accesslog = "-"
control_socket_disable = True  # a socket in the user's home directory, which a service has none of


def on_starting(server):
    """The workers leave their metrics in a directory; nothing of the last time is to be added to them."""
    for file in Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", "/nowhere")).glob("*.db"):
        file.unlink()
