"""A client that speaks ``wsthreads.1`` by hand: the test decides what it acknowledges, and when it comes back."""

from __future__ import annotations

from contextlib import suppress

from tests.programs import wait_until
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, RawClient, close_payload
from wsthreads.protocol import envelope

BUSY = (CLOSE, close_payload(1013, "the session is moving to this process"))

OFFER = {"Sec-WebSocket-Protocol": "wsthreads.1"}


class Speaker:
    """One client over all of its connections. It acknowledges and answers nothing but pings by itself."""

    def __init__(self, port, path="/ws/test", headers=(), **options):
        self.port, self.path, self.headers, self.options = port, path, {**OFFER, **dict(headers)}, options
        self.token = None
        self.received = self.sent = 0
        self.wire = None
        self.welcome = None
        self._first = None  # a frame that was read and not taken

    def open(self):
        """Connect, without a hello."""
        if self.wire is not None:
            self.wire.sock.close()
        self._first = None
        self.wire = RawClient(self.port, self.path, self.headers, **self.options)
        assert self.wire.status == 101, self.wire.status
        assert self.wire.headers["sec-websocket-protocol"] == "wsthreads.1"
        return self

    def hello(self, token=None, received=None):
        self.put(envelope.hello(token, self.received if received is None else received))

    def put(self, message):
        """Send a message as it is."""
        self.wire.send(TEXT if isinstance(message, str) else BINARY, message)

    def greet(self):
        """The welcome, which has to come next."""
        self.welcome = self.take()
        assert isinstance(self.welcome, envelope.Welcome), self.welcome
        if not self.welcome.resumed:
            self.received = self.sent = 0
        self.token = self.welcome.token
        return self.welcome

    def begin(self):
        """Connect for a new session."""
        self.open().hello()
        self.greet()
        return self

    def come_back(self, token=None, received=None):
        """Connect again with the last token. Returns the welcome."""
        self.open().hello(token or self.token, received)
        return self.greet()

    def go_to(self, port, token=None, received=None):
        """Connect with the last token to another process. Its answer comes next.

        While the process tells it that the session is on its way, it comes again, as all clients do.
        """
        self.port = port

        def is_answered():
            self.open().hello(token or self.token, received)
            self._first = self._read()
            return self._first != BUSY

        wait_until(is_answered, "an answer other than that the session is on its way")
        return self

    def _read(self):
        """The next frame that is no ping. Answers pings: a server sends some while somebody looks at its page."""
        first, self._first = self._first, None
        opcode, payload = first or self.wire.receive()
        while opcode == PING:
            self.wire.send(PONG, payload)
            opcode, payload = self.wire.receive()
        return opcode, payload

    def take(self):
        """The next message, parsed. Counts it if it is counted."""
        opcode, payload = self._read()
        assert opcode in (TEXT, BINARY), (opcode, payload)
        parsed = envelope.parse(payload.decode() if opcode == TEXT else payload)
        if not isinstance(parsed, (envelope.Welcome, envelope.Ack)):
            self.received += 1
        return parsed

    def next(self):
        """The next counted message."""
        while isinstance(found := self.take(), envelope.Ack):
            pass
        return found

    def all(self, count):
        return [self.next() for _ in range(count)]

    def send(self, message):
        """Send an ordinary message."""
        self.put(envelope.escaped(message))
        self.sent += 1

    def ask(self, number, data):
        self.put(envelope.request(number, data))
        self.sent += 1

    def ack(self):
        self.put(envelope.ack(self.received))

    def heartbeat(self):
        """Wait until the server has taken all that was sent. Counts, and drops, what comes meanwhile."""
        self.put(envelope.heartbeat(self.received))
        while self.take() != envelope.Ack(self.sent):
            pass
        return self.sent

    def lose(self):
        """End TCP without a close frame."""
        self.wire.sock.close()

    def receive_close(self):
        return self.wire.receive_close()

    def is_refused(self):
        """(code, reason) of the close frame that comes before anything else."""
        opcode, payload = self._read()
        assert opcode == CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def leave(self):
        with suppress(OSError, EOFError):
            self.wire.leave()
        self.wire.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.wire is not None:
            self.wire.sock.close()
