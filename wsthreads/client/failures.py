"""Describes in words why there is no connection to a server."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from wsproto.events import RejectConnection
from wsproto.utilities import ProtocolError

from wsthreads.client.handshake import shown
from wsthreads.errors import BackendError, CloseCode
from wsthreads.monitoring.logs import printable

__all__ = [
    "FORKED",
    "MAX_REFUSAL_BYTES",
    "ConnectFailed",
    "connecting",
    "describe_end",
    "describe_refusal",
    "retry_after_of",
]

#: At most this much of the response to a refused handshake is read, and at most this much of its text is shown.
MAX_REFUSAL_BYTES = 4096
MAX_SHOWN_CHARS = 300

#: The text that says why the client of a parent process is closed.
FORKED = "it belongs to the process from which this one was forked; make another client here"


class ConnectFailed(BackendError):
    """There is no connection, because it could not be made, or the server refused it with the HTTP status `status`.

    `bare` is the text without advice. The advice would be wrong for an address that has worked before. `retry_after_s`
    is how long the server asks the client to wait.
    """

    def __init__(
        self, message: str, status: int | None = None, *, advice: str = "", retry_after_s: float = 0.0
    ) -> None:
        self.status, self.bare, self.retry_after_s = status, message, retry_after_s
        super().__init__(message + advice)


@contextmanager
def connecting(host: str, timeout_s: float) -> Iterator[None]:
    """A context manager that turns errors of sockets, TLS and the handshake into `ConnectFailed`."""
    try:
        yield
    except TimeoutError as error:
        raise ConnectFailed(f"no answer within {timeout_s:g} s") from error
    # UnicodeError: the name is not possible in DNS, such as 64 letters without a dot
    except (socket.gaierror, UnicodeError) as error:
        raise ConnectFailed(f"there is no host {host:.300}") from error
    except ssl.SSLCertVerificationError as error:
        advice = "to trust the certificates in FILE, set SSL_CERT_FILE=FILE"
        raise ConnectFailed(f"the server's certificate is not trusted: {error.verify_message}; {advice}") from error
    except ConnectionRefusedError as error:
        raise ConnectFailed("Connection refused, nothing listens there") from error
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            raise ConnectFailed("the server there does not speak TLS: try ws:// in place of wss://") from error
        raise ConnectFailed(error.strerror or str(error)) from error
    except ProtocolError as error:
        raise ConnectFailed(f"the server there does not speak WebSocket: {error}") from error


def describe_refusal(refusal: RejectConnection, body: bytes) -> str:
    """Returns one line of text that says why the server refused a handshake."""
    status = refusal.status_code
    if status < 300:  # the response is a page, such as that of the dashboard
        where = "check the path, and that a proxy passes on the header Upgrade"
        return f"the server answered with {status}, as to a request for a page: {where}"
    is_text = any(name == b"content-type" and value.startswith(b"text/plain") for name, value in refusal.headers)
    words = " ".join(body.decode("utf-8", "replace").split()) if is_text else ""
    location = next((value for name, value in refusal.headers if name == b"location"), b"").decode("latin-1")
    description = f"the server refused with {status}"
    if location and status < 400:
        description += f", a redirect to {shown(location):.{MAX_SHOWN_CHARS}}"
    return description + (f": {printable(words[:MAX_SHOWN_CHARS])}" if words else "")


def retry_after_of(refusal: RejectConnection) -> float:
    """Returns the seconds in the header Retry-After. 0 without this header, and if it is a date."""
    value = next((value for name, value in refusal.headers if name == b"retry-after"), b"")
    return float(value) if re.fullmatch(rb"[0-9]{1,9}", value) else 0.0


def describe_end(code: int, reason: str) -> str:
    """Returns a few words that say why a connection has ended."""
    if code == CloseCode.ABNORMAL:
        return printable(reason) or "the connection was lost"
    return f"{int(code)} {printable(reason)}".strip()
