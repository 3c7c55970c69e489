"""A WebSocket client for the terminal: lines that are typed are sent, what arrives is shown.

`Client` is the connection, on wsproto; `converse` is the conversation, both for one thread, since OpenSSL's objects
may not be read and written at once. Only the reading of lines has a thread of its own. Every wait has a deadline.
"""

from __future__ import annotations

import base64
import codecs
import os
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from wsthreads.errors import BackendError, CloseCode, UsageError
from wsthreads.monitoring.formats import hide_secrets
from wsthreads.monitoring.logs import printable

__all__ = ["Client", "ConnectFailed", "converse", "describe_close", "shown"]

RECEIVE_BYTES = 65536

#: Longest answer to a refused handshake that is read.
MAX_REFUSAL_BYTES = 4096

#: How long the server has to answer a close frame.
CLOSE_TIMEOUT_S = 3.0

#: Lines that are read ahead of what is sent.
MAX_LINES_AHEAD = 100

#: The clock is looked at this often while nothing happens: `select` takes no time without end.
MAX_SELECT_S = 3600.0

#: What a header's name, a subprotocol, and a header's value consist of (RFC 9110, 5.6.2 and 5.5).
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")

#: The user and the password in a URL, slashes in them included; and in one that cannot be taken apart.
_CREDENTIALS = re.compile(r"(?:(?<=//)|\A(?!.*//))[^?#]*@", re.DOTALL)
_PERHAPS_CREDENTIALS = re.compile(r"(?:(?<=//)|\A(?!.*//)).*@", re.DOTALL)

_WORDS = {
    CloseCode.NORMAL: "normal",
    CloseCode.NO_STATUS: "no code given",
    CloseCode.ABNORMAL: "connection lost",
    CloseCode.INTERNAL_ERROR: "the server failed",
}


class ConnectFailed(BackendError):
    """No connection to the server, or no WebSocket on it."""


def describe_close(code: int, reason: str = "") -> str:
    """A close code in words.

    >>> describe_close(1009, "2 MiB")
    '1009 message too big: 2 MiB'
    """
    try:
        words = _WORDS.get(CloseCode(code)) or CloseCode(code).name.lower().replace("_", " ")
    except ValueError:
        words = "the application's own" if 4000 <= code <= 4999 else "unknown"
    return f"{code} {words}" + (f": {printable(reason)}" if reason else "")


class Client:
    """A connection to a WebSocket server. Not thread-safe.

    A user and a password in `url` are sent as Basic authentication (RFC 7617), unless `headers` have an Authorization.
    Raises `UsageError` for a URL, a header or a subprotocol that is none, `ConnectFailed` if no WebSocket comes about
    within `timeout_s`, which is also how long one `send` may block.
    """

    def __init__(
        self,
        url: str,
        *,
        parameters: Sequence[tuple[str, str]] = (),
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        timeout_s: float = 10.0,
    ) -> None:
        secure, address, host, path, authorization = _parse(url, parameters)
        self.subprotocol: str | None = None
        #: (code, reason) when the connection is over.
        self.closed: tuple[int, str] | None = None
        self._timeout_s = timeout_s
        self._parts: list[str | bytes] = []
        self._early: list[str | bytes] = []  # messages that came with the answer to the handshake
        self._protocol = WSConnection(ConnectionType.CLIENT)
        request = self._protocol.send(_request(host, path, headers, subprotocols, authorization))
        deadline = monotonic() + timeout_s
        try:
            self._sock = _connect(address, secure, timeout_s)
            try:
                self._handshake(request, deadline)
                self._sock.settimeout(timeout_s)
                self._early = self._take()
            except BaseException:
                self._sock.close()
                raise
        except TimeoutError as error:
            raise ConnectFailed(f"no answer within {timeout_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            advice = "SSL_CERT_FILE=FILE trusts the one in FILE"
            raise ConnectFailed(f"its certificate is not trusted: {error.verify_message}; {advice}") from error
        except ConnectionRefusedError as error:
            raise ConnectFailed("Connection refused, nothing listens there") from error
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
                raise ConnectFailed("what answers there speaks no TLS: try ws:// in place of wss://") from error
            raise ConnectFailed(error.strerror or str(error)) from error
        except ProtocolError as error:
            raise ConnectFailed(f"no WebSocket server answers there: {error}") from error

    def _handshake(self, request: bytes, deadline: float) -> None:
        self._sock.sendall(request)
        refusal: RejectConnection | None = None
        body, complete = b"", False
        while True:
            for event in self._protocol.events():
                if isinstance(event, AcceptConnection):
                    self.subprotocol = event.subprotocol
                    return
                if isinstance(event, RejectConnection):
                    refusal, complete = event, not event.has_body
                elif isinstance(event, RejectData):
                    body, complete = body + event.data, event.body_finished
            if refusal and (complete or len(body) > MAX_REFUSAL_BYTES):
                break
            self._sock.settimeout(max(0.001, deadline - monotonic()))
            data = self._sock.recv(RECEIVE_BYTES)
            if not data:
                break
            self._protocol.receive_data(data)
        if refusal is None:
            advice = "" if isinstance(self._sock, ssl.SSLSocket) else "; if it speaks TLS, try wss:// in place of ws://"
            raise ConnectFailed(f"the server hung up without an answer{advice}")
        is_text = any(name == b"content-type" and value.startswith(b"text/plain") for name, value in refusal.headers)
        words = " ".join(body.decode("utf-8", "replace").split()) if is_text else ""
        location = next((value for name, value in refusal.headers if name == b"location"), b"").decode("latin-1")
        leads = f", which leads to {shown(location):.300}" if location and 300 <= refusal.status_code < 400 else ""
        told = f": {printable(words[:300])}" if words else ""
        if refusal.status_code < 300:  # a page, such as the dashboard's
            where = "check the path, and that a proxy passes on the header Upgrade"
            raise ConnectFailed(f"the server answered with {refusal.status_code}, as to a request for a page: {where}")
        raise ConnectFailed(f"the server refused with {refusal.status_code}{leads}{told}")

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether there is input that `select` does not see."""
        if self._early:
            return True
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.fileno() >= 0 and self._sock.pending() > 0

    def receive(self) -> list[str | bytes]:
        """The messages that the next input completes. Blocks, if there is no input, for `timeout_s` at most."""
        if self._early:
            messages, self._early = self._early, []
            return messages
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except TimeoutError:
            return []
        except OSError:
            data = b""
        if not data:
            self._end(CloseCode.ABNORMAL)
            return []
        self._protocol.receive_data(data)
        return self._take()

    def _take(self) -> list[str | bytes]:
        """The messages that are complete; answers what is to be answered."""
        messages: list[str | bytes] = []
        for event in self._protocol.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    parts, self._parts = self._parts, []
                    messages.append(parts[0][:0].join(parts))  # type: ignore[arg-type]
            elif isinstance(event, Ping):
                self._write(event.response())
            elif isinstance(event, CloseConnection):
                if self._protocol.state is not ConnectionState.CLOSED:
                    self._write(event.response())
                self._end(event.code, event.reason or "")
                break
        return messages

    def send(self, text: str) -> bool:
        """Send a text message. False if the connection is over, or the server does not read."""
        return self._protocol.state is ConnectionState.OPEN and self._write(TextMessage(data=text))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Start the close handshake; the server's answer comes through `receive`. Idempotent."""
        if self._protocol.state is ConnectionState.OPEN:
            self._write(CloseConnection(code=code, reason=reason))

    def abort(self) -> None:
        """Hang up. Idempotent."""
        self._end(CloseCode.ABNORMAL)

    def _write(self, event: Event) -> bool:
        try:
            self._sock.sendall(self._protocol.send(event))
        except OSError:  # its end, and what led to it, is for receive() to find
            return False
        return True

    def _end(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = int(code), reason
        self._sock.close()


def shown(url: str) -> str:
    """A URL without what is secret in it: the user and the password, and parameters that look like a token.

    >>> shown("ws://ann:pa55@localhost:5000/ws/chat?token=1")
    'ws://***@localhost:5000/ws/chat?token=***'
    """
    try:
        parts = urlsplit(url)
        pattern = _PERHAPS_CREDENTIALS if parts.port is None and not parts.netloc else _CREDENTIALS
    except ValueError:  # such as a password with a slash in it, which makes a bad port of what is before
        pattern = _PERHAPS_CREDENTIALS
    return hide_secrets(pattern.sub("***@", url))


def _parse(url: str, parameters: Sequence[tuple[str, str]]) -> tuple[bool, tuple[str, int], str, str, str]:
    """Whether it is TLS, where to connect, the Host header, the path with the query, the Authorization header."""
    form = f"{shown(url)}: a WebSocket URL looks like ws://127.0.0.1:5000/ws/chat"
    try:
        _bytes_of(url)
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(form + ("" if "@" in url else f"; {error}")) from error
    if parts.scheme not in ("ws", "wss") or not host:
        raise UsageError(form)
    secure = parts.scheme == "wss"
    port = (443 if secure else 80) if port is None else port
    path = _quoted(parts.path or "/", "/%:@!$&'()*+,;=~-._")
    query = _quoted(parts.query, "/%:@!$&'()*+,;=~-._?")
    added = urlencode([(_encoded(name), _encoded(value)) for name, value in parameters])
    query = "&".join(filter(None, (query, added)))
    credentials, _, netloc = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    pair = unquote_to_bytes(_bytes_of(user)) + b":" + unquote_to_bytes(_bytes_of(password))
    authorization = f"Basic {base64.b64encode(pair).decode()}" if credentials else ""
    return secure, (host, port), netloc, path + (f"?{query}" if query else ""), authorization


def _quoted(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="surrogateescape")


def _bytes_of(text: str) -> bytes:
    """A text of the command line; what was not UTF-8 there is again what it was."""
    return text.encode("utf-8", "surrogateescape")


def _request(
    host: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    subprotocols: Sequence[str],
    authorization: str,
) -> Request:
    """The handshake. Raises `UsageError` for what would not be HTTP."""
    pairs = [_checked_header(name, value) for name, value in headers]
    host = next((value.decode("latin-1") for name, value in pairs if name.lower() == b"host"), host)
    extra = [(name, value) for name, value in pairs if name.lower() != b"host"]  # of which there may be one only
    try:
        written = host.encode("idna")  # as wsproto writes it
    except UnicodeError:
        written = b""
    if not re.fullmatch(rb"[!-~]+", written):
        raise UsageError(f"{host!r:.100} is no name of a host")
    if authorization and not any(name.lower() == b"authorization" for name, _ in extra):
        extra.append((b"Authorization", authorization.encode()))
    for subprotocol in subprotocols:
        if not _TOKEN.fullmatch(_encoded(subprotocol)):
            raise UsageError(f"a subprotocol has letters, digits and some of !#$%&'*+-.^_`|~, not {subprotocol!r:.100}")
    return Request(host=host, target=path, subprotocols=list(subprotocols), extra_headers=extra)


def _checked_header(name: str, value: str) -> tuple[bytes, bytes]:
    raw_name, raw_value = _encoded(name), _encoded(value).strip(b" \t")
    if not _TOKEN.fullmatch(raw_name):
        raise UsageError(f"a header's name has letters, digits and some of !#$%&'*+-.^_`|~, not {name!r:.100}")
    if not _VALUE.fullmatch(raw_value):
        raise UsageError(f"the value of the header {name} may have no line ends or other control characters")
    return raw_name, raw_value


def _encoded(text: str) -> bytes:
    try:
        return _bytes_of(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r:.100} cannot be written in UTF-8") from error


def _connect(address: tuple[str, int], secure: bool, timeout_s: float) -> socket.socket:
    try:
        sock = socket.create_connection(address, timeout_s)
    except (socket.gaierror, ValueError) as error:  # ValueError: what could not be looked up, as a label of 64 letters
        raise ConnectFailed(f"there is no host {address[0]:.300}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return sock
    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=address[0])
    except BaseException:
        sock.close()
        raise


def converse(
    client: Client,
    input_fd: int,
    show: Callable[[str | bytes], None],
    *,
    wait_s: float = 0.0,
    on_start: Callable[[], None] = lambda: None,
) -> tuple[int, str]:
    """Send the lines of `input_fd`, show each message, until either side ends; returns the close code and reason.

    At the end of the input, answers are waited for and shown for `wait_s` more, then the connection is closed.
    So it is at Ctrl-C, at once; a second Ctrl-C hangs up. From `on_start` on, Ctrl-C is taken care of.
    """
    lines = _Lines(input_fd)
    try:
        try:
            on_start()
            deadline = None
            while client.pending or (client.closed is None and (deadline is None or monotonic() < deadline)):
                for message in _next_messages(client, lines, deadline):
                    show(message)
                if deadline is None:
                    with suppress(Empty):
                        line = lines.get_nowait()
                        if line is None:
                            deadline = monotonic() + wait_s
                        else:
                            client.send(line)
        except KeyboardInterrupt:
            pass  # close, as at the end of the input
        client.close()
        deadline = monotonic() + CLOSE_TIMEOUT_S
        while client.closed is None and monotonic() < deadline:
            for message in _next_messages(client, None, deadline):
                show(message)
    except KeyboardInterrupt:
        pass
    finally:
        client.abort()
        lines.close()
    assert client.closed is not None
    return client.closed


def _next_messages(client: Client, lines: _Lines | None, deadline: float | None) -> list[str | bytes]:
    """Wait for a message, a line or the deadline; the messages, if that was what came."""
    if not client.pending:
        waiting: list[Any] = [client, lines.wake] if lines else [client]
        timeout_s = None if deadline is None else min(max(0.0, deadline - monotonic()), MAX_SELECT_S)
        if client not in select.select(waiting, [], [], timeout_s)[0]:
            return []
    return client.receive()


class _Lines(Queue["str | None"]):
    """The lines of a file descriptor, as they come, and None at its end. `wake` is readable while there are some.

    The thread that reads them is a daemon, since there is no way to wake it, and reads the descriptor itself: one
    that waited in sys.stdin would hold a lock that the end of the process needs.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(MAX_LINES_AHEAD)
        self._fd = fd
        self.wake, self._waker = socket.socketpair()
        Thread(target=self._read, name="wsthreads-lines", daemon=True).start()

    def get_nowait(self) -> str | None:
        line = super().get_nowait()
        self.wake.recv(1)
        return line

    def close(self) -> None:
        self.wake.close()
        self._waker.close()

    def _read(self) -> None:
        with suppress(OSError):  # closed, at either end
            for line in self._split():
                self.put(line)
                self._waker.send(b"\0")
        self.put(None)
        with suppress(OSError):
            self._waker.send(b"\0")

    def _split(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while data := os.read(self._fd, RECEIVE_BYTES):
            *lines, rest = (rest + decoder.decode(data)).split("\n")
            yield from (line.removesuffix("\r") for line in lines)
        rest += decoder.decode(b"", final=True)
        if rest:
            yield rest
