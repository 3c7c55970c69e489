"""Django's live server for tests, with the WebSockets of the setting WSGI_APPLICATION.

    from wsthreads.django.test import LiveServerTestCase

Django's own live server ignores WSGI_APPLICATION, so it answers 404 for endpoints. If you use another test class of
Django, such as `StaticLiveServerTestCase`, set its attribute ``server_thread_class = LiveServerThread``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, get_internal_wsgi_application
from django.test import LiveServerTestCase as _TestCase
from django.test.testcases import LiveServerThread as _Thread
from django.test.testcases import QuietWSGIRequestHandler

from wsthreads.django.sockets import HandsOverSocket
from wsthreads.errors import CloseCode

__all__ = ["LiveServerTestCase", "LiveServerThread"]


class _RequestHandler(HandsOverSocket, QuietWSGIRequestHandler):  # type: ignore[misc]  # Django has no annotations
    pass


class _Server(ThreadedWSGIServer):  # type: ignore[misc]
    def set_app(self, application: Any) -> None:
        """Replace Django's `WSGIHandler` by WSGI_APPLICATION. The handlers for static files and media stay around it.

        A handler for files at the path ``/`` is left out, because it would answer every request itself. Without a
        MEDIA_URL, the path of media files is ``/``.
        """
        self.inner = get_internal_wsgi_application()
        super().set_app(_chain(application, self.inner))


def _chain(handler: Any, inner: Any) -> Any:
    if type(handler) is WSGIHandler:
        return inner
    handler.application = _chain(handler.application, inner)
    return handler.application if handler.base_url.path == "/" else handler


class LiveServerThread(_Thread):  # type: ignore[misc]
    """Serves WSGI_APPLICATION. At the end of the tests, closes remaining sessions with the code 1001."""

    def _create_server(self, connections_override: Any = None) -> _Server:
        address = (self.host, self.port)
        return _Server(address, _RequestHandler, allow_reuse_address=False, connections_override=connections_override)

    def terminate(self) -> None:
        inner = getattr(getattr(self, "httpd", None), "inner", None)
        for endpoint in getattr(inner, "endpoints", ()):
            for session in endpoint.sessions():
                with suppress(Exception):  # the session has ended in the meantime
                    session.close(CloseCode.GOING_AWAY, "the test is over")
        super().terminate()


class LiveServerTestCase(_TestCase):  # type: ignore[misc]
    """Django's `LiveServerTestCase`, with WebSockets, such as ``"ws" + self.live_server_url[4:] + "/ws/chat"``."""

    server_thread_class = LiveServerThread
