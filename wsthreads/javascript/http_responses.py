"""HTTP/1.1 responses for the `fetch` of scripts, by http.client. The end of each response is checked strictly.

http.client accepts malformed responses. Server and client may then disagree about the end of a response. In this case,
the rest of the response becomes the beginning of the next response on the connection, which may belong to a request of
another session. So this module treats a violation of RFC 9112 as an error if the length of the response depends on it.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from io import BufferedReader, RawIOBase
from typing import Any, BinaryIO, cast

from urllib3.response import BaseHTTPResponse

from wsthreads.javascript.fetch_requests import FetchFailed

__all__ = ["MAX_HEAD_BYTES", "Response", "is_whole"]

#: The largest head of a response, in bytes: its status and headers. http.client has this limit for each line.
MAX_HEAD_BYTES = 65_536

#: Matches a CR that does not end its line, a NUL, or a line that begins with neither a name and a colon nor a blank. A
#: blank continues the header of the previous line.
_STRAY = re.compile(rb"\A[ \t]|\r(?!\n)|\0|^(?!\r?\n|[ \t]|[!#$%&'*+.^_`|~0-9A-Za-z-]+:|\Z)", re.MULTILINE)

#: The line before a chunk, which has the chunk's size, and the end of the line after a chunk.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHUNK_END = re.compile(rb"\r?\n")
MAX_CHUNK_LINE_BYTES = 4096


class _Head:
    """Gives all headers of a response to http.client as one line, because http.client accepts at most 100 lines."""

    def __init__(self, stream: BufferedReader) -> None:
        self.close = stream.close
        self.peek = stream.peek
        self._parts = self._read(stream)

    def readline(self, limit: int) -> bytes:
        return next(self._parts)

    def _read(self, stream: BinaryIO) -> Iterator[bytes]:
        while True:
            yield stream.readline(MAX_HEAD_BYTES + 1)  # the status
            headers = line = b""
            while line not in (b"\r\n", b"\n") and len(headers) <= MAX_HEAD_BYTES:
                line = stream.readline(MAX_HEAD_BYTES + 1 - len(headers))
                headers += line
                # http.client would take the received part for the whole head.
                if not line.endswith(b"\n") and len(headers) <= MAX_HEAD_BYTES:
                    raise http.client.RemoteDisconnected("the server closed it within the headers of the response")
            if len(headers) > MAX_HEAD_BYTES:  # http.client refuses such a head, so it may be cut anywhere
                yield headers
            # Servers, proxies and clients disagree about what such lines mean.
            elif _STRAY.search(headers):
                raise FetchFailed("a line of the response's head is not a header, or has a NUL or a CR in it")
            else:
                yield _one_line_each(headers)
            if headers != line:
                yield b""  # http.client expects a separate empty line


def _one_line_each(headers: bytes) -> bytes:
    """The headers of a response, each in one line, without blanks at the end of the line.

    http.client and urllib3 would take a blank at the end as a part of the value. The coding ``chunked`` would then not
    be recognised.
    """
    lines: list[list[bytes]] = []
    for line in headers.split(b"\n"):
        if line.startswith((b" ", b"\t")) and lines:
            lines[-1].append(line.strip(b" \t\r"))
        else:
            lines.append([line.rstrip(b" \t\r")])
    return b"\n".join(b" ".join(filter(None, parts)) for parts in lines)


class _Resumed(RawIOBase):
    """Returns the bytes of `early` first, which were read from the connection before, and then those of `raw`."""

    def __init__(self, early: bytearray, raw: RawIOBase) -> None:
        self._early = early
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        if not self._early:
            return self._raw.readinto(into)
        data = self._early[: len(into)]
        del self._early[: len(data)]
        into[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """Skips all interim responses (1xx), of which http.client skips only 100, and returns the others.

    Responses with 204 and 304 have no body, even if their headers announce one. http.client would wait for a chunked
    body. `on_end` is called at the end of the response. Its argument says whether the server has sent more bytes than
    the response. `early` has the bytes that were read from the connection before. Reading the response removes them.
    """

    def __init__(
        self,
        on_end: Callable[[bool], None],
        early: bytearray,
        sock: socket.socket,
        *arguments: Any,
        **options: Any,
    ) -> None:
        super().__init__(sock, *arguments, **options)
        if early:
            self.fp = BufferedReader(_Resumed(early, self.fp.detach()))
        self._on_end = on_end
        self._socket = sock

    def begin(self) -> None:
        stream = self.fp
        self.fp = head = cast(BufferedReader, _Head(stream))
        try:
            super().begin()
            while self.status < 200:
                if self.status == HTTPStatus.SWITCHING_PROTOCOLS:
                    raise FetchFailed("the server changes to another protocol: status 101")
                self.headers = self.msg = None  # type: ignore[assignment]  # so `begin` reads the next head
                super().begin()
            self._check_length()
            # one of these two headers must be wrong
            self.will_close |= self.chunked and "content-length" in self.headers
            if self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
                # A server that announces a body for a 204 may also send it; http.client would take it for the next
                # response.
                is_odd = self.chunked or self.headers.get("content-length", "0") != "0"
                self.will_close |= is_odd and self.status == HTTPStatus.NO_CONTENT
                self.chunked = False
            if self.length is None and not self.chunked and isinstance(self._socket, ssl.SSLSocket):
                # Anybody on the way can cut such a body by a FIN; without this setting, the cut would look like its
                # end. typeshed does not know the attribute.
                self._socket.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        finally:
            if self.fp is head:  # http.client removes `fp` if it closes the connection
                self.fp = stream

    def _check_length(self) -> None:
        """Raises `FetchFailed` if the headers do not clearly state the length of the body."""
        codings = self.headers.get_all("transfer-encoding", [])
        if codings and [coding.strip(" \t").lower() for coding in codings] != ["chunked"]:
            raise FetchFailed(f"the response has a transfer-encoding other than chunked: {', '.join(codings)[:100]!r}")
        lengths = {length.strip(" \t") for length in self.headers.get_all("content-length", [])}
        if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,18}", length) for length in lengths):
            raise FetchFailed(f"the content-length is not one number: {', '.join(sorted(lengths))[:100]!r}")

    # overrides http.client's method: returns how many bytes of the chunk are left, None at the end
    def _get_chunk_left(self) -> int | None:
        if self.chunk_left == 0:
            self._expect(_CHUNK_END)
        if not self.chunk_left:
            self.chunk_left = int(self._expect(_CHUNK_LINE)[1], 16) or None
            if self.chunk_left is None:
                self._read_and_discard_trailer()  # type: ignore[attr-defined]
                self._close_conn()
        return self.chunk_left

    def _expect(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        line = self.fp.readline(MAX_CHUNK_LINE_BYTES)
        if match := pattern.fullmatch(line):
            return match
        if len(line) < MAX_CHUNK_LINE_BYTES and not line.endswith(b"\n"):
            raise http.client.IncompleteRead(b"")
        raise FetchFailed(f"a chunk of the body is malformed: it begins or ends with {line[:40]!r}")

    def _close_conn(self) -> None:  # overrides http.client's method: called at the end of the response
        self._on_end(_has_more(self.fp, self._socket))
        super()._close_conn()  # type: ignore[misc]


def _has_more(stream: BufferedReader, sock: socket.socket) -> bool:
    """Whether there are bytes that were not read: in the buffer, or already decrypted."""
    try:
        timeout = sock.gettimeout()
        sock.settimeout(0)
        try:
            return bool(stream.peek(1))
        finally:
            sock.settimeout(timeout)
    except ssl.SSLWantReadError:
        return False
    except (OSError, ValueError):  # the socket is closed
        return True


def is_whole(response: BaseHTTPResponse) -> bool:
    """Whether the decoders of a body have reached the end of its data. urllib3 does not check this."""
    decoder: Any = getattr(response, "_decoder", None)
    decoders = getattr(decoder, "_decoders", [decoder])
    return response.tell() == 0 or all(map(_is_at_end, decoders))


def _is_at_end(decoder: Any) -> bool:
    """Whether a decoder of urllib3 has reached the end of its data.

    Data in the format gzip may be followed by anything.

    But if zlib accepts more bytes after the end, they belong to another member of the gzip data, and this member was
    cut.
    """
    state, unpacker = getattr(decoder, "_state", 0), getattr(decoder, "_obj", None)
    if getattr(unpacker, "eof", True):
        return True
    return state != 0 and (state != 1 or not any(_takes(unpacker, byte) for byte in range(256)))


def _takes(unpacker: Any, byte: int) -> bool:
    """Whether a decompressor of zlib accepts this byte. A byte of padding would be the last that it accepts."""
    try:
        unpacker.copy().decompress(bytes([byte]))
    except zlib.error:
        return False
    return True
