"""The chat example in production: ``gunicorn -c examples/gunicorn.conf.py``, then http://127.0.0.1:8000/.

A session keeps its thread for as long as it lasts, so `threads` is the number of sessions that a worker carries, and
two more for HTTP. Rooms live in one process: for several workers, name a Redis, WSTHREADS_REDIS=redis://localhost. In
front of it there may be nginx: ``TRUSTED_PROXIES=1``, and see deploy/.

With ``METRICS=1`` metrics are at /metrics; those of all workers, if PROMETHEUS_MULTIPROC_DIR names a directory. Where
everybody can reach it, set WSTHREADS_METRICS_TOKEN, too.
"""

import os
from pathlib import Path

here = Path(__file__).resolve().parent

wsgi_app = "wsthreads:create_app({!r}, {!r}, static={!r}, trusted_proxies={}, serve_metrics={})".format(
    *(str(here / name) for name in ("chat.js", "rooms.js", "public")),
    int(os.environ.get("TRUSTED_PROXIES", "0")),
    os.environ.get("METRICS", "0") != "0",
)

bind = "127.0.0.1:8000"
worker_class = "wsthreads.gunicorn.ThreadWorker"
workers = 1
threads = 1000
worker_connections = threads + 100  # the 100 are for connections that wait, or are kept alive

# At TERM and HUP, sessions are closed (1001, 1012) and have this long to end; clients then find the new worker.
graceful_timeout = 10

accesslog = "-"


def on_starting(server):
    """What the workers of the last time have left is not to be added to that of the new ones."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        for file in Path(directory).glob("*.db"):
            file.unlink()


# gunicorn's own way to be steered, by a socket in its user's home directory, which a service has none of.
control_socket_disable = True
