"""Decides which part of an app answers a request."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from wsthreads.app.host import Host
from wsthreads.app.routing import Match, Routing
from wsthreads.client import is_client, send_client
from wsthreads.config import Config
from wsthreads.errors import ConfigError, HandshakeRefused
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import ENDPOINT_KEY, hide_secrets, log_context, printable
from wsthreads.protocol.handshake import is_upgrade
from wsthreads.protocol.hints import answer_with_hint, foreign_protocol
from wsthreads.protocol.proxies import address_of
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.threads.lookups import look_up
from wsthreads.threads.scheduling import Scheduling

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from wsthreads.dashboard import Dashboard

__all__ = ["Dispatcher"]

log = get_logger(__name__)


class Dispatcher:
    """The WSGI application inside `WebSocketApp`. Any thread.

    The parts of the app are tried in this order: an endpoint with exactly the request's path, the dashboard, one of the
    `services`, ``wsthreads.js``, an endpoint whose rule matches, `wsgi_app`. A rule is a path with parameters, such as
    ``/<name>``, and may match many paths of `wsgi_app`. So a request that matches only a rule, and is not for a
    WebSocket, also goes to `wsgi_app`.
    """

    def __init__(
        self,
        routing: Routing,
        *,
        config: Config,
        host: Host,
        services: dict[str, WSGIApplication],
        dashboard: Dashboard | None,
        scheduling: Scheduling,
        wsgi_app: WSGIApplication | None,
    ) -> None:
        self._routing = routing
        self._config = config
        self._host = host
        self._services = services
        self._dashboard = dashboard
        self._scheduling = scheduling
        self._wsgi_app = wsgi_app
        self._warned = False  # whether the warning that the server cannot serve sessions was logged

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._host.look_at_logs()
        # A proxy may pass on an address that it has not checked. The server logs the address, too.
        environ["REMOTE_ADDR"] = printable(address_of(environ.get("REMOTE_ADDR") or ""))
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        match = self._routing.match(path)
        if match is not None:
            return self._accept(match, environ, start_response)
        if self._dashboard is not None and self._dashboard.owns(path):
            self._scheduling.other_request()
            if path == self._dashboard.endpoint.path:
                return self._accept(Match(self._dashboard.endpoint, {}), environ, start_response)
            return self._dashboard(environ, start_response)
        service = look_up(self._services, path)
        if service is not None:
            self._scheduling.other_request()
            self._host.meet(environ)
            return service(environ, start_response)
        if self._config.serve_client and is_client(environ):
            self._scheduling.other_request()
            return send_client(environ, start_response, self._config.allowed_origins)
        match = self._routing.match_rule(path)
        if match is not None and (self._wsgi_app is None or is_upgrade(environ)):
            return self._accept(match, environ, start_response)
        self._scheduling.other_request()
        return self._pass_on(path, environ, start_response)

    def _accept(self, match: Match, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        endpoint = match.endpoint
        environ[ENDPOINT_KEY] = endpoint.path
        self._host.meet(environ)
        try:
            return endpoint.accept(environ, start_response, match.path_parameters)
        except HandshakeRefused as refusal:
            endpoint.count_refusal(refusal)
            self._log_refusal(endpoint, refusal, environ)
            answer = refusal.response
            if answer is None:
                answer = Response(f"{refusal.reason}\n", refusal.status, list(refusal.headers), mimetype="text/plain")
            return answer(environ, start_response)

    def _log_refusal(self, endpoint: Endpoint, refusal: HandshakeRefused, environ: WSGIEnvironment) -> None:
        peer, why = environ["REMOTE_ADDR"], printable(hide_secrets(str(refusal)))
        level = logging.INFO
        # this is a mistake of the operator, so it is a warning, but only once
        if refusal.cause == "server" and not self._warned:
            self._warned, level = True, logging.WARNING
        log.log(level, "handshake on %s from %s refused: %s", endpoint.path, peer, why, extra=log_context(environ))

    def _pass_on(self, path: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        application: WSGIApplication = NotFound()
        if self._wsgi_app is not None:
            self._mark_passed_on(path, environ)
            application = self._wsgi_app
        if foreign_protocol(environ):
            return answer_with_hint(application, self._hint(path, environ), environ, start_response)
        # a Flask route for all paths, such as that of static files, would answer such a request with 400
        if is_upgrade(environ):
            statuses = ("400", "404", "405")
            return answer_with_hint(application, self._hint(path, environ), environ, start_response, statuses)
        return application(environ, start_response)

    def _mark_passed_on(self, path: str, environ: WSGIEnvironment) -> None:
        """Note that `wsgi_app` gets this request. Raises `ConfigError` if `wsgi_app` passes it back to this app."""
        passed_on: tuple[object, ...] = environ.get("wsthreads.passed_on", ())
        if (self, path) in passed_on:
            raise ConfigError(
                "this WebSocketApp is its own wsgi_app: either write app.wsgi_app = WebSocketApp(app.wsgi_app), "
                "or let the server serve WebSocketApp(app), and do not change app.wsgi_app"
            )
        environ["wsthreads.passed_on"] = (*passed_on, (self, path))

    def _hint(self, path: str, environ: WSGIEnvironment) -> str:
        """Returns the text of the response 404 for a client that asks for an unknown endpoint. Also logs this."""
        near, foreign = self._routing.hint(path), foreign_protocol(environ)
        hint = f"; did you mean {environ.get('SCRIPT_NAME', '')}{near}?" if near else ""
        if not near and (misfit := self._routing.misfit(path)):
            hint = f"; {misfit}"
        hint += f"; {foreign}" if foreign else ""
        shown, peer, known = printable(hide_secrets(path)), environ["REMOTE_ADDR"], ", ".join(self._routing.paths)
        log.info("no endpoint %.500s for %s; there are: %.500s%s", shown, peer, known, printable(hint))
        return f"there is no WebSocket endpoint at {shown:.500}{hint}"
