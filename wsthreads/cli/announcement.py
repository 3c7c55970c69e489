"""Prints where ``wsthreads run`` listens and what it serves."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence

from werkzeug.serving import get_interface_ip

from wsthreads.app import WebSocketApp
from wsthreads.cli.checks import remarks_on
from wsthreads.cli.streams import discard_output, output_failure
from wsthreads.cli.targets import Target
from wsthreads.config import DASHBOARD_TOKEN_VARIABLE
from wsthreads.dashboard import PREFIX, function_names
from wsthreads.loggers import get_logger
from wsthreads.servers.serving import Server

__all__ = ["Announcement"]

log = get_logger(__name__)

#: Browsers refuse to connect to these ports: https://fetch.spec.whatwg.org/#port-blocking.
BAD_PORTS = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109),
        *(110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530),
        *(531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045),
        *(4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    )
)


class Announcement:
    """Prints the announcement when it is called. Call it when the port is bound, so that readers can connect at once.

    `made_token` is the token of the page, if one was made for this run. With `to_log`, the lines go to the log, without
    the token.
    """

    def __init__(
        self,
        app: WebSocketApp,
        server: Server,
        targets: Sequence[Target],
        *,
        static: str | None,
        made_token: str,
        to_log: bool,
        restarted: bool,
    ) -> None:
        self._app = app
        self._server = server
        self._targets = targets
        self._static = static
        self._made_token = made_token
        self._to_log = to_log
        self._restarted = restarted

    def __call__(self) -> None:
        say: Callable[[str], None] = log.info if self._to_log else print
        try:
            for line in self._lines():
                say(line)
            sys.stdout.flush()
        except OSError as error:  # nobody reads the output, and the server runs nevertheless
            discard_output()
            log.warning("serving at %s; %s", self._server.url, output_failure(error))
        if self._server.port in BAD_PORTS:
            log.warning("browsers do not connect to port %d; choose another port with --port", self._server.port)
        if self._made_token and self._to_log:
            log.info("the page needs a token, because other machines can reach it: set %s", DASHBOARD_TOKEN_VARIABLE)
        if self._restarted:
            log.info("the server has restarted with new code", extra={"kind": "reload"})
        for target in self._targets:
            hooks, resumes = self._app.endpoint(target.path).handler.hooks, self._app.config.resume_s > 0
            for remark in remarks_on(target, hooks, resumes=resumes):
                log.warning("%s", remark)

    def _lines(self) -> list[str]:
        url = self._server.url
        has_index = self._static is not None and os.path.isfile(os.path.join(self._static, "index.html"))
        served = []
        if self._static is not None:
            served = [(f"{url}/" if has_index else f"{url}/…", f"the files in {self._static}")]
        served.append((url + (PREFIX if has_index else "/"), "the page about this server"))
        for endpoint in self._app.endpoints:
            functions = ", ".join(function_names(endpoint))
            served.append((self._server.ws_url + endpoint.path, f"{endpoint.handler.name}: {functions}"))
        width = max(len(url) for url, _ in served)
        lines = [f"Listening on {' and '.join([url, *_other_urls(self._server)])} (Ctrl-C stops)"]
        lines += [f"  {url:{width}}  {what}" for url, what in served]
        if self._made_token and not self._to_log:
            page = f"{url}{PREFIX}#token={self._made_token}"
            lines.append(f"The page needs a token, because other machines can reach it: {page}")
        return lines


def _other_urls(server: Server) -> list[str]:
    """Returns the URL for other machines, if the server listens on all addresses."""
    if server.host not in ("0.0.0.0", "::", ""):
        return []
    address = get_interface_ip(socket.AF_INET)
    return [] if address.startswith("127.") else [f"{server.url.partition(':')[0]}://{address}:{server.port}"]
