"""A server process: ``python -m tests.stress.model.server``, or an app for gunicorn. The environment configures it.

MODEL_HANDLER is the language, MODEL_REDIS the URL of Redis, MODEL_MUTATION a mutation. With MODEL_STRICT, no call gives
up waiting for Redis.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path
from threading import Thread

from tests.stress.model import mutations
from tests.stress.model.handler import Handler
from tests.stress.model.program import MAX_OUTBOX_BYTES
from tests.stress.server import App, Control, end_with_parent
from wsthreads import RedisBroker
from wsthreads.servers.serving import Server
from wsthreads.testing.timers import ManualTimers

PATH = "/model"
PATIENCE_S = 120.0
STRICT_S = 60.0


def create_app() -> App:
    """The app, and ``/control`` beside it, as in `tests.stress.server`."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s")
    if interval := os.environ.get("WSTHREADS_TEST_SWITCH_INTERVAL"):
        sys.setswitchinterval(float(interval))
    url = os.environ.get("MODEL_REDIS")
    if url and os.environ.get("MODEL_STRICT"):
        _wait_for_redis_as_long_as_it_takes()
    mutations.apply(os.environ.get("MODEL_MUTATION", ""))
    app = App(
        lambda environ, start_response: control(environ, start_response),
        broker=RedisBroker(url) if url else None,
        max_outbox_bytes=MAX_OUTBOX_BYTES,
        send_timeout_s=PATIENCE_S,
        close_timeout_s=PATIENCE_S,
        ping_interval_s=0,
        script_timeout_s=PATIENCE_S,
    )
    if os.environ["MODEL_HANDLER"] == "javascript":
        endpoint = app.add_script(PATH, Path(__file__).with_name("handler.js"))
    else:
        handler = Handler()
        endpoint = handler.endpoint = app.add_handler(PATH, handler)
    if "gunicorn" in sys.modules and url:
        room = endpoint.room("before the fork")  # which starts the link in the process that forks
        room.broadcast("and has nobody to hear it")
        room.members()  # by now it is connected, and its threads wait: one that imports something may not be forked
    endpoint.suspensions.timers = clock = ManualTimers()
    control = Control(app, endpoint, clock)
    return app


def _wait_for_redis_as_long_as_it_takes() -> None:
    from wsthreads.brokers import availability, pending

    availability.WAIT_S = pending.LONGEST_S = STRICT_S


def main() -> int:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # its access log
    app = create_app()
    Thread(target=end_with_parent, name="stress-parent-watch", daemon=True).start()
    server = Server(app, port=0)
    print(f"Listening at: {server.url}", flush=True)
    return server.run()


if __name__ == "__main__":
    sys.exit(main())
