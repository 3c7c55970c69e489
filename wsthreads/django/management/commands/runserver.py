"""Django's ``runserver`` for WebSockets: the server passes its socket to the `WebSocketApp` in WSGI_APPLICATION.

Only the WSGI environ is different. Django's attribute `server_cls` allows another server class.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import CommandError
from django.core.servers.basehttp import WSGIRequestHandler, WSGIServer

from wsthreads.django.sockets import HandsOverSocket
from wsthreads.protocol.server_support import green_threads

if apps.is_installed("django.contrib.staticfiles"):  # staticfiles has its own runserver
    from django.contrib.staticfiles.management.commands.runserver import Command as _Command
else:
    from django.core.management.commands.runserver import Command as _Command

__all__ = ["Command"]


class _RequestHandler(HandsOverSocket, WSGIRequestHandler):  # type: ignore[misc]  # Django has no annotations
    pass


class _Server(WSGIServer):  # type: ignore[misc]
    def __init__(self, address: Any, handler_class: type, **options: Any) -> None:
        super().__init__(address, _RequestHandler, **options)


class Command(_Command):  # type: ignore[misc]
    """``runserver`` with WebSockets."""

    server_cls = _Server

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["use_threading"]:
            raise CommandError(
                "--nothreading serves one connection at a time, so the first WebSocket would block all others: "
                'run it without --nothreading, or remove "wsthreads.django" from INSTALLED_APPS'
            )
        if unfit := green_threads():
            raise CommandError(unfit)
        super().handle(*args, **options)
