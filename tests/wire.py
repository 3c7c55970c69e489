"""For the tests of the core: WebSocket as bytes, a client without manners, a real Werkzeug server, TLS, threads."""

from __future__ import annotations

import base64
import ctypes
import os
import queue
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from werkzeug.serving import make_server

from tests.programs import DEADLINE_S, PROGRAM_S
from wsthreads import WebSocketApp
from wsthreads.protocol.frames import encode_frame
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import PlainTransport

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(opcode, payload=b"", *, fin=True, masked=True, rsv=0, key=None):
    """One frame as a client sends it; what a good client would not do is an argument."""
    if isinstance(payload, str):
        payload = payload.encode()
    size, bit = len(payload), 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size <= 125:
        head += bytes([bit | size])
    elif size <= 0xFFFF:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not masked:
        return head + payload
    key = os.urandom(4) if key is None else key
    mask = (key * (size // 4 + 1))[:size]
    return head + key + (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def close_payload(code, reason=""):
    return struct.pack("!H", code) + reason.encode()


def parse_frames(data, limit=None):
    """Frames of a server's stream as (opcode, payload), and what is left: half a frame, or what is past `limit`."""
    frames, at = [], 0
    while len(data) - at >= 2 and (limit is None or len(frames) < limit):
        first, size, begin = data[at], data[at + 1], at + 2
        assert first & 0xF0 == 0x80, f"byte {at} begins no final frame: {first:#x}"
        assert first & 0x0F in (TEXT, BINARY, CLOSE, PING, PONG), f"opcode at byte {at}: {first:#x}"
        assert size < 128, f"a masked frame at byte {at}"
        if size == 126:
            if len(data) < begin + 2:
                break
            (size,), begin = struct.unpack_from("!H", data, begin), begin + 2
            assert size > 125
        elif size == 127:
            if len(data) < begin + 8:
                break
            (size,), begin = struct.unpack_from("!Q", data, begin), begin + 8
            assert size > 0xFFFF
        if len(data) < begin + size:
            break
        frames.append((first & 0x0F, bytes(data[begin : begin + size])))
        at = begin + size
    return frames, bytes(data[at:])


def request_bytes(path="/ws/test", headers=(), *, method="GET", version="HTTP/1.1", without=()):
    """A handshake; `headers` override or add, `without` leaves some out."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    fields.update(headers)
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in fields.items() if name not in without]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class RawClient:
    """A client without manners: it sends what it is told to, and takes apart what comes by itself."""

    def __init__(self, port, path="/ws/test", headers=(), *, early=b"", tls=None, receive_buffer=None, **request):
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PROGRAM_S)  # perhaps its worker has still to start
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = tls.wrap_socket(sock, server_hostname="127.0.0.1") if tls else sock
        self.buffer = b""
        try:
            self.sock.sendall(request_bytes(path, headers, **request) + early)
            while b"\r\n\r\n" not in self.buffer:
                if not self._fill():
                    raise EOFError(f"no answer to the handshake, only {self.buffer!r}")
        except BaseException:
            self.sock.close()
            raise
        self.sock.settimeout(DEADLINE_S)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _fill(self):
        with suppress(ssl.SSLEOFError):
            data = self.sock.recv(262144)
            self.buffer += data
            return bool(data)
        return False

    def body(self):
        """The rest of an HTTP answer."""
        while len(self.buffer) < int(self.headers["content-length"]):
            assert self._fill()
        return self.buffer.decode()

    def send(self, opcode, payload=b"", **how):
        self.sock.sendall(frame(opcode, payload, **how))

    def text(self, payload):
        self.send(TEXT, payload)

    def receive(self):
        """The next frame, as (opcode, payload); EOFError at the end of the stream."""
        while True:
            frames, rest = parse_frames(self.buffer, 1)
            if frames:
                self.buffer = rest
                return frames[0]
            if not self._fill():
                raise EOFError(f"the stream has ended with {self.buffer!r:.80}")

    def receive_text(self):
        """The next text. Answers the pings before it, which a test that takes long on a busy machine gets."""
        opcode, payload = self.receive()
        while opcode == PING:
            self.send(PONG, payload)
            opcode, payload = self.receive()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def receive_close(self):
        """(code, reason) of the close frame, whatever comes before it; code None for an empty one."""
        while True:
            opcode, payload = self.receive()
            if opcode == CLOSE:
                return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (None, "")

    def at_end(self):
        """Whether nothing more comes, and TCP is over."""
        with suppress(ConnectionResetError):
            while self._fill():
                pass
        return not self.buffer

    def reset(self):
        """End TCP with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def leave(self):
        """A clean end, of both halves."""
        self.send(CLOSE, close_payload(1000))
        assert self.receive_close() == (1000, "")
        assert self.at_end()
        self.sock.close()


class Line:
    """An outbox on one end of a socketpair, the test on the other."""

    def __init__(self, flusher, *, max_bytes=2**30, timeout_s=DEADLINE_S, send_buffer=None, transport=PlainTransport):
        self.ours, self.theirs = socket.socketpair()
        if send_buffer:
            self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.theirs.settimeout(DEADLINE_S)
        self.stuck = []
        self.transport = transport(self.ours)
        self.outbox = Outbox(
            self.transport, flusher, max_bytes=max_bytes, timeout_s=timeout_s, on_stuck=self.stuck.append
        )

    def send(self, frame):
        taken = self.outbox.append(frame)
        self.outbox.flush()
        return taken

    def fill(self, payload=b"x" * 65536):
        """Send until the kernel has no more room; how many frames that took."""
        count = 0
        while not self.outbox.is_blocked:
            self.send(encode_frame(TEXT, payload))
            count += 1
        return count

    def read_frames(self, count):
        data = bytearray()
        frames = []
        while len(frames) < count:
            piece = self.theirs.recv(1 << 20)
            assert piece, f"the stream ends after {len(frames)} frames"
            data += piece
            new, rest = parse_frames(data)
            frames += new
            data = bytearray(rest)
        assert not data, "half a frame is left"
        return frames

    def read_to_end(self):
        data = bytearray()
        while piece := self.theirs.recv(1 << 20):
            data += piece
        return data

    def end(self):
        self.outbox.detach()
        self.ours.close()
        self.theirs.close()


@contextmanager
def open_lines(flusher, count):
    """Lines whose kernels have little room. At the end, their outboxes are as they should be."""
    lines = [Line(flusher, send_buffer=4096) for _ in range(count)]
    yield lines
    for line in lines:
        line.outbox._check()
        line.end()


class Recorder:
    """A handler that keeps what happens to it."""

    def __init__(self):
        self.opened = queue.Queue()
        self.messages = queue.Queue()
        self.closed = queue.Queue()

    def on_open(self, session):
        self.opened.put(session)

    def on_message(self, session, message):
        self.messages.put(message)

    def on_close(self, session, code, reason):
        self.closed.put((session.id, code, reason))

    def session(self):
        return self.opened.get(timeout=DEADLINE_S)

    def message(self):
        return self.messages.get(timeout=DEADLINE_S)

    def close(self):
        """(code, reason) of the next `on_close`."""
        return self.closed.get(timeout=DEADLINE_S)[1:]


class Echo(Recorder):
    def on_message(self, session, message):
        session.send(message)


@contextmanager
def serving(app, *, ssl_context=None):
    """A real Werkzeug server in a thread; gives its port. Shuts the app down, if it is a WebSocketApp."""
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=ssl_context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="test-server")
    thread.start()
    try:
        yield server.server_port
    finally:
        if isinstance(app, WebSocketApp):
            app.shutdown(2.0)
        server.shutdown()
        thread.join(DEADLINE_S)
        server.server_close()


@contextmanager
def endpoint(handler, path="/ws/test", *, ssl_context=None, **settings):
    """(app, port) of a server with one endpoint. It does not ping, unless told to: no test is to depend on its time."""
    app = WebSocketApp(**{"ping_interval_s": 0, **settings})
    app.add_handler(path, handler)
    with serving(app, ssl_context=ssl_context) as port:
        yield app, port


def self_signed(folder: Path):
    """(server's, client's) TLS contexts, of a certificate that is made on the spot."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=certificate)
    client.check_hostname = False
    return server, client


#: Of linux/socket.h; Python does not have them.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


def vanish(sock):
    """Have the kernel drop all that comes in for a socket: nothing is acknowledged any more, nor answered by a reset.

    For the other end, that is a machine that has lost its power or its network. Needs no privileges.
    """
    program = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes
    code = ctypes.create_string_buffer(program)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))


def come_back(sock):
    """The end of `vanish`: what is sent again from now on is acknowledged."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def open_files():
    """What each file descriptor of this process is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def new_files(before):
    """What `open_files` has now and had not `before`. What others have left may end at any time."""
    return dict(open_files().items() - before.items())


def run_all(*functions):
    """Run functions in threads at once, wait for all, and raise the first error of any."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S * 3)
        if thread.is_alive():
            errors.append(AssertionError("a thread hangs"))
    if errors:
        raise errors[0]
