"""Django's live server for tests, with the WebSockets of WSGI_APPLICATION.

    from wsthreads.django.test import LiveServerTestCase

Django's own goes past WSGI_APPLICATION, so that endpoints are 404 there. With another class of Django's, such as
`StaticLiveServerTestCase`, set ``server_thread_class = LiveServerThread``.
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
        """Given what serves static files and media before a `WSGIHandler`: that is what WSGI_APPLICATION replaces."""
        outer = application
        while type(outer.application) is not WSGIHandler:
            outer = outer.application
        outer.application = self.inner = get_internal_wsgi_application()
        super().set_app(application)


class LiveServerThread(_Thread):  # type: ignore[misc]
    """Serves WSGI_APPLICATION. At its end, sessions that are left are closed with 1001."""

    def _create_server(self, connections_override: Any = None) -> _Server:
        address = (self.host, self.port)
        return _Server(
            address, _RequestHandler, allow_reuse_address=False, connections_override=connections_override
        )

    def terminate(self) -> None:
        inner = getattr(getattr(self, "httpd", None), "inner", None)
        for endpoint in getattr(inner, "endpoints", ()):
            for session in endpoint.sessions():
                with suppress(Exception):  # it has ended by itself
                    session.close(CloseCode.GOING_AWAY, "the test is over")
        super().terminate()


class LiveServerTestCase(_TestCase):  # type: ignore[misc]
    """Django's, whose `live_server_url` serves WebSockets, too: ``"ws" + self.live_server_url[4:] + "/ws/chat"``."""

    server_thread_class = LiveServerThread
