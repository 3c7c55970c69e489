"""The channels of a session whose outbox keeps: one for each of its connections. Over real sockets."""

import socket
import struct

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, PING, TEXT, frame, parse_frames, run_all
from wsthreads.config import Config
from wsthreads.errors import ProtocolError
from wsthreads.protocol import envelope
from wsthreads.protocol.channel import Channel
from wsthreads.protocol.connection import Connection
from wsthreads.protocol.encoding import encoding_for
from wsthreads.protocol.envelope import Hello
from wsthreads.protocol.frames import message_frame
from wsthreads.protocol.hello import read_hello
from wsthreads.protocol.outbox import Outbox, post
from wsthreads.protocol.transport import PlainTransport

SPOKEN = encoding_for(None, enveloped=True)
WELCOME = message_frame("\x10w{}")


class End:
    """A channel, and the client's end of its connection."""

    def __init__(self, flusher, *, send_buffer=None, **settings):
        self.ours, self.theirs = socket.socketpair()
        if send_buffer:
            self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.theirs.settimeout(DEADLINE_S)
        self.counted = []
        self.channel = Channel(
            PlainTransport(self.ours),
            environ={},
            config=Config(**settings),
            flusher=flusher,
            subprotocol=None,
            encoding=SPOKEN,
            count=self.counted.append,
        )
        self.data = b""

    def frames(self, count):
        found = []
        while len(found) < count:
            frames, self.data = parse_frames(self.data, count - len(found))
            found += frames
            if len(found) < count:
                piece = self.theirs.recv(1 << 18)
                assert piece, f"the stream ends after {found}"
                self.data += piece
        return found

    def is_at_end(self):
        """Whether nothing more comes, and TCP is over."""
        while piece := self.theirs.recv(1 << 18):
            self.data += piece
        return not self.data

    def has_nothing_more(self):
        self.theirs.setblocking(False)
        try:
            return not self.theirs.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.theirs.settimeout(DEADLINE_S)

    def close(self):
        self.channel.outbox.detach()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def end(flusher):
    made = []

    def make(**settings):
        made.append(End(flusher, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def begun(end):
    """A new session: its outbox, and its first connection."""

    def begin(**settings):
        first = end(**settings)
        first.channel.outbox.keep(100_000, on_stuck=first.counted.append)
        assert first.channel.welcome(WELCOME, 0)
        assert first.frames(1) == [(TEXT, b"\x10w{}")]
        return first.channel.outbox, first

    return begin


def text(payload):
    return (TEXT, payload.encode())


def close_of(code, reason=""):
    return (CLOSE, struct.pack("!H", code) + reason.encode())


def test_a_session_begins_with_its_first_connection_and_goes_on_with_another(begun, end):
    outbox, first = begun()
    post(outbox, message_frame("a"))
    assert first.frames(1) == [text("a")]
    assert first.channel.is_open
    assert not first.channel.suspends
    second = end()
    assert first.channel.supersede()
    assert first.channel.ending == (1006, "replaced by a new connection")
    assert first.channel.suspends
    assert second.channel.welcome(WELCOME, 1, outbox)
    assert second.channel.outbox is outbox
    post(outbox, message_frame("b"))
    assert second.frames(2) == [text("\x10w{}"), text("b")]
    assert first.is_at_end()
    assert first.channel.finish() == (1006, "replaced by a new connection")
    first.channel.hang_up()
    post(outbox, message_frame("c"))
    assert second.frames(1) == [text("c")], "the end of the old connection changes nothing"
    assert second.channel.is_open


def test_a_connection_that_is_closed_for_good_is_not_superseded(begun):
    outbox, first = begun()
    assert first.channel.begin_close(4000, "kicked", is_kick=True)
    assert not first.channel.supersede()
    assert not first.channel.suspends
    assert first.frames(1) == [close_of(4000, "kicked")]
    assert first.channel.finish() == (4000, "kicked")
    first.theirs.close()
    first.channel.hang_up()
    assert outbox.is_over


@pytest.mark.parametrize("how", ["lost", "cut", "lose"])
def test_a_lost_connection_leaves_the_session_alive(begun, end, how):
    outbox, first = begun()
    post(outbox, message_frame("a"))
    if how == "cut":
        first.channel.cut()
        assert outbox.is_suspended
        assert not first.channel.is_open
    elif how == "lose":
        first.channel.lose("the network is gone")
    assert first.channel.finish()[0] == 1006
    assert first.channel.suspends
    first.channel.hang_up()
    assert outbox.is_suspended
    assert post(outbox, message_frame("b"))
    second = end()
    assert second.channel.welcome(WELCOME, 0, outbox)
    assert second.frames(3) == [text("\x10w{}"), text("a"), text("b")]


@pytest.mark.parametrize("code", [1001, 4901])
def test_a_client_that_leaves_to_come_back_is_answered_and_its_session_stays(begun, code):
    outbox, first = begun()
    post(outbox, message_frame("a"))
    first.channel.answer_close(code, "away")
    assert first.channel.ending == (code, "away")
    assert first.channel.suspends
    assert post(outbox, message_frame("b")), "for the next connection"
    assert first.frames(2) == [text("a"), close_of(code)]
    assert first.channel.finish() == (code, "away")
    first.theirs.close()
    first.channel.hang_up()
    assert outbox.is_suspended
    assert outbox.unacknowledged_bytes == 6


@pytest.mark.parametrize("code", [1000, 1005, 3000, 4900, 4000])
def test_a_client_that_closes_with_another_code_ends_its_session(begun, code):
    outbox, first = begun()
    first.channel.answer_close(code, "")
    assert not first.channel.suspends
    assert not post(outbox, message_frame("late"))
    assert first.channel.finish() == (code, "")
    assert outbox.is_over


@pytest.mark.parametrize("code", [1001, 4901])
def test_where_nothing_is_kept_a_client_that_leaves_is_gone(end, code):
    first = end()
    first.channel.answer_close(code, "")
    assert first.frames(1) == [close_of(code)]
    assert not first.channel.suspends
    assert first.channel.finish() == (code, "")
    assert first.channel.outbox.is_over


def test_a_ping_that_is_found_when_another_connection_has_taken_over_is_not_answered(connected, end):
    connection, client = connected()
    outbox = connection.channel.outbox
    outbox.keep(100_000, on_stuck=print)
    assert connection.channel.welcome(WELCOME, 0)
    client.sendall(frame(TEXT, "a") + frame(PING, b"x") + frame(TEXT, "b"))
    incoming = connection.messages()
    assert next(incoming) == "a"
    assert connection.channel.supersede()
    second = end()
    assert second.channel.welcome(WELCOME, 0, outbox)
    assert list(incoming) == [], "nothing more is taken"
    assert connection.finish()[0] == 1006
    post(outbox, message_frame("next"))
    assert second.frames(2) == [text("\x10w{}"), text("next")]


# Parting


def test_the_server_parts_from_a_connection_and_the_session_waits(begun):
    outbox, first = begun()
    post(outbox, message_frame("a"))
    assert first.channel.part(1012, "restart")
    assert not first.channel.part(1012, "restart")
    assert post(outbox, message_frame("b"))
    assert first.frames(2) == [text("a"), close_of(1012, "restart")]
    assert first.has_nothing_more()
    assert first.channel.suspends
    assert first.channel.finish() == (1012, "restart")
    first.theirs.close()
    first.channel.hang_up()
    assert outbox.is_suspended


def test_parting_where_a_message_was_written_in_part_ends_tcp(begun, end):
    outbox, first = begun(send_buffer=4096)
    post(outbox, message_frame("x" * 100_000))
    assert first.channel.part(1012)
    assert not first.is_at_end(), "half a message is there"
    assert first.channel.finish()[0] == 1012
    first.channel.hang_up()
    second = end()
    assert second.channel.welcome(WELCOME, 0, outbox)
    assert second.frames(2)[1] == text("x" * 100_000)


def test_a_client_that_does_not_answer_when_the_server_parts_is_cut_off(begun):
    outbox, first = begun(close_timeout_s=0.05)
    assert first.channel.part(1012)
    assert first.frames(1) == [close_of(1012)]
    assert first.is_at_end()
    wait_until(lambda: first.counted == ["past_close_timeout_s"], "the timer")
    assert outbox.is_suspended


def test_where_nothing_is_kept_parting_is_closing(end):
    first = end()
    assert first.channel.part(1012, "restart")
    assert first.frames(1) == [close_of(1012, "restart")]
    assert not first.channel.suspends
    assert not post(first.channel.outbox, message_frame("late"))


def test_parting_before_the_welcome_leaves_the_session_alone(begun, end):
    outbox, first = begun()
    first.channel.cut()
    second = end()
    assert second.channel.part(1012)
    assert not second.channel.welcome(WELCOME, 0, outbox)
    assert second.frames(1) == [close_of(1012)]
    assert second.channel.outbox is not outbox
    assert outbox.is_suspended
    second.channel.finish()
    assert post(outbox, message_frame("a"))


def when_it_lets_go(channel, outbox, what):
    """Have `what` happen when `welcome` lets go of the connection's own outbox."""

    class Own(Outbox):
        __slots__ = ()

        def detach(self):
            what()
            Outbox.detach(self)

    channel.outbox.__class__ = Own


def when_it_goes_on(channel, outbox, what):
    """Have `what` happen when `welcome` has the session's outbox, before that has the connection."""

    class Sessions(Outbox):
        __slots__ = ()

        def resume(self, *arguments, **more):
            what()
            Outbox.resume(self, *arguments, **more)

    outbox.__class__ = Sessions


MOMENTS = pytest.mark.parametrize("moment", [when_it_lets_go, when_it_goes_on])


@MOMENTS
@pytest.mark.parametrize("how", ["part", "lose"])
def test_a_connection_that_ends_in_the_midst_of_the_welcome_leaves_the_session_alive(begun, end, moment, how):
    outbox, first = begun()
    post(outbox, message_frame("a"))
    first.channel.cut()
    second = end()
    moment(second.channel, outbox, lambda: second.channel.part(1012) if how == "part" else second.channel.lose("gone"))
    second.channel.welcome(WELCOME, 0, outbox)
    second.channel.finish()
    assert outbox.is_suspended
    assert not outbox.is_over
    outbox.__class__ = Outbox
    third = end()
    assert third.channel.welcome(WELCOME, 0, outbox)
    assert third.frames(2) == [text("\x10w{}"), text("a")]


@MOMENTS
def test_nothing_comes_behind_the_close_frame_of_a_kick_in_the_midst_of_the_welcome(begun, end, moment):
    outbox, first = begun()
    first.channel.cut()
    second = end()
    moment(second.channel, outbox, lambda: second.channel.begin_close(4000, "kicked", is_kick=True))
    second.channel.welcome(WELCOME, 0, outbox)
    assert not second.channel.suspends
    second.theirs.shutdown(socket.SHUT_WR)
    second.channel.finish()
    second.channel.hang_up()
    frames = []
    while piece := second.theirs.recv(1000):
        frames += parse_frames(piece)[0]
    assert frames[-1] == close_of(4000, "kicked")
    assert (moment is when_it_goes_on) == outbox.is_over


# Counts and bounds


def test_a_wrong_count_is_an_error_that_changes_nothing(begun, end):
    outbox, first = begun()
    second = end()
    with pytest.raises(ProtocolError, match="1 message received, 0 to 0 are possible"):
        second.channel.welcome(WELCOME, 1, outbox)
    assert second.channel.outbox is not outbox
    post(second.channel.outbox, message_frame("its own"))
    assert second.frames(1) == [text("its own")]
    post(outbox, message_frame("a"))
    assert first.frames(1) == [text("a")]


def test_a_client_that_reads_too_slowly_is_told_by_its_last_connection(begun, end):
    outbox, first = begun(send_timeout_s=0.05)
    first.channel.supersede()
    second = end(send_buffer=4096)
    assert second.channel.welcome(WELCOME, 0, outbox)
    post(outbox, message_frame("x" * 50_000))
    wait_until(lambda: second.channel.ending, "the end")
    assert second.channel.ending[0] == 1013
    assert second.channel.was_too_slow
    assert not second.channel.suspends
    assert not first.channel.was_too_slow
    assert first.counted == []


# The hello


@pytest.fixture
def connected(flusher):
    made = []

    def make(**settings):
        ours, theirs = socket.socketpair()
        theirs.settimeout(DEADLINE_S)
        environ = {"werkzeug.socket": ours, "HTTP_SEC_WEBSOCKET_KEY": "x", "HTTP_SEC_WEBSOCKET_VERSION": "13"}
        config = Config(**settings)
        connection = Connection(environ, config=config, flusher=flusher, subprotocol="wsthreads.1")
        while not theirs.recv(1000).endswith(b"\r\n\r\n"):
            pass
        made.extend([ours, theirs])
        return connection, theirs

    yield make
    for each in made:
        each.close()


def hello_of(connection, incoming):
    return read_hello(connection.channel, incoming, connection._config.handshake_timeout_s, connection._flusher)


def test_a_hello_is_read_and_what_comes_behind_it_is_left(connected):
    connection, client = connected()
    client.sendall(frame(TEXT, envelope.hello("id.secret", 3)) + frame(TEXT, "a") + frame(TEXT, "\x10\x10b"))
    incoming = connection.messages()
    assert hello_of(connection, incoming) == Hello("id.secret", 3)
    assert [next(incoming), next(incoming)] == ["a", "\x10\x10b"]
    connection.channel.cut()


@pytest.mark.parametrize("first", ["a", "\x10a1", "\x10h", '\x10h{"resume":1}', b"\x10h{}", "\x10x"])
def test_another_first_message_closes_the_connection(connected, first):
    connection, client = connected(close_timeout_s=0.05)
    client.sendall(frame(TEXT if isinstance(first, str) else 2, first) + frame(TEXT, envelope.hello()))
    assert hello_of(connection, connection.messages()) is None
    assert connection.finish()[0] == 1002
    assert parse_frames(client.recv(1000))[0][0][1][:2] == struct.pack("!H", 1002)


def test_without_a_hello_the_connection_is_closed_after_the_timeout(connected):
    connection, client = connected(handshake_timeout_s=0.05, close_timeout_s=0.05)
    found = []
    run_all(lambda: found.append(hello_of(connection, connection.messages())))
    assert found == [None]
    assert connection.finish() == (1002, "no hello within 0.05 s")
    assert parse_frames(client.recv(1000))[0][0] == close_of(1002, "no hello within 0.05 s")


def test_a_client_that_is_gone_before_its_hello_has_none(connected):
    connection, client = connected()
    client.close()
    assert hello_of(connection, connection.messages()) is None
    assert connection.finish()[0] == 1006
