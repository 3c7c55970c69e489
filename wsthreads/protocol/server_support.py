"""Detects servers that cannot have sessions, because they give no access to the socket, or have no (real) threads."""

from __future__ import annotations

import os
import sys
from typing import Any

from wsthreads.monitoring.logs import printable
from wsthreads.protocol.wsgi_servers import has_socket

__all__ = ["USE", "green_threads", "is_to_serve", "is_validated", "unfitness"]

#: The advice at the end of each error.
USE = "use gunicorn -k gthread, or -k wsthreads.gunicorn.ThreadWorker, wsthreads run or flask run"

#: The name of each server. The key is in the server's environ, or SERVER_SOFTWARE begins with it.
_SERVERS = {
    "uwsgi.version": "uWSGI",
    "mod_wsgi.version": "mod_wsgi",
    "eventlet.posthooks": "eventlet.wsgi",
    "gunicorn": "this gunicorn worker",
    "waitress": "Waitress",
    "Cheroot": "Cheroot",
    "gevent": "gevent.pywsgi",
    "WSGIServer": "wsgiref",
    "Werkzeug": "Werkzeug's server",
}

#: For gevent and eventlet: the module that replaces parts of Python, its function that says whether a part is replaced,
#: and the parts that a session needs unchanged.
_GREEN = {
    "gevent": ("gevent.monkey", "is_module_patched", ("threading", "socket")),
    "eventlet": ("eventlet.patcher", "is_monkey_patched", ("thread", "socket")),
}


def green_threads() -> str | None:
    """Returns an error text if gevent or eventlet has replaced Python's threads or sockets, otherwise None."""
    for name, (module, question, parts) in _GREEN.items():
        is_patched = getattr(sys.modules.get(module), question, None)
        if is_patched is not None and any(map(is_patched, parts)):
            call = "monkey.patch_all()" if name == "gevent" else "monkey_patch()"
            return (
                f"{name} has replaced Python's threads and sockets in this process, and a session needs real ones: "
                f"remove {call}, and {USE}"
            )
    return None


def is_to_serve() -> bool:
    """Whether this process is certainly a server: a gunicorn process, or ``flask run``.

    Other processes may import an application and use green threads, for example a worker of a task queue.
    """
    return "gunicorn.arbiter" in sys.modules or (os.environ.get("FLASK_RUN_FROM_CLI") == "true" and "run" in sys.argv)


def is_validated(environ: dict[str, Any]) -> bool:
    """Whether `wsgiref.validate` wraps the application.

    This wrapper lets plain HTTP pass, but fails at each WebSocket.
    """
    return type(environ.get("wsgi.input")).__module__ == "wsgiref.validate"


def unfitness(environ: dict[str, Any]) -> str | None:
    """Returns the reason why the server of this request cannot have sessions. Returns None if it can."""
    if green := green_threads():
        return green
    if not has_socket(environ):
        name = _name_of_server(environ)
        hint = ' (for runserver, put "wsthreads.django" first in INSTALLED_APPS)' if name == "wsgiref" else ""
        return f"{name} does not hand over its socket, so there are no WebSockets: {USE}{hint}"
    if not environ.get("wsgi.multithread"):
        name = _name_of_server(environ)
        return f"{name} runs without threads, and a session needs one: {USE} (no --without-threads, --nothreading)"
    return None


def _name_of_server(environ: dict[str, Any]) -> str:
    software = str(environ.get("SERVER_SOFTWARE", ""))
    name = next((name for key, name in _SERVERS.items() if key in environ or software.startswith(key)), None)
    return name or f"this WSGI server ({printable(software)[:60] or 'of no name'})"
