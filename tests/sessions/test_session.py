"""What a handler sees of one client."""

from time import monotonic

import pytest

from tests.programs import DEADLINE_S, connect, wait_until
from tests.wire import BINARY, CLOSE, TEXT, RawClient, Recorder, close_payload, endpoint, run_all
from wsthreads import CloseCodeError, MessageTypeError
from wsthreads.sessions.session import new_session_id


@pytest.fixture
def opened():
    """A session, its client and its handler."""
    handler = Recorder()
    path = "/ws/test?user=%C3%A9+b&user=second&empty=&plus=a%2Bb&bad=%ff"
    with endpoint(handler) as (_, port), RawClient(port, path, {"X-Custom": "yes", "X-Twice": "a, b"}) as client:
        yield handler.session(), client, handler


def test_ids_are_long_and_never_the_same():
    ids = {new_session_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(each) for each in ids} == {22}


def test_an_id_is_read_only(opened):
    session, _, _ = opened
    with pytest.raises(AttributeError):
        session.id = "mine"


def test_parameters_are_decoded_and_the_first_counts(opened):
    session, _, _ = opened
    assert session.get_parameter("user") == "é b"
    assert session.get_parameter("empty") == ""
    assert session.get_parameter("plus") == "a+b"
    assert session.get_parameter("bad") == "\ufffd"
    assert session.get_parameter("missing") is None


def test_headers_are_found_whatever_their_case(opened):
    session, _, _ = opened
    assert session.get_header("x-custom") == session.get_header("X-CUSTOM") == "yes"
    assert session.get_header("Upgrade") == "websocket"
    assert session.get_header("missing") is None
    assert session.request.headers["x-twice"] == "a, b"


def test_path_and_address_are_those_of_the_handshake(opened):
    session, _, _ = opened
    assert session.request_path == "/ws/test"
    assert session.remote_addr == "127.0.0.1"
    assert session.subprotocol is None


def test_attributes_are_a_dict_of_the_sessions_own(opened):
    session, _, _ = opened
    session.attributes["a"] = value = object()
    assert session.attributes == {"a": value}


def test_text_bytes_and_lone_surrogates_are_sent(opened):
    session, client, _ = opened
    assert session.send("é😀\0")
    assert session.send(b"\0\xff")
    assert session.send("a\ud800")
    assert client.receive() == (TEXT, "é😀\0".encode())
    assert client.receive() == (BINARY, b"\0\xff")
    assert client.receive() == (TEXT, "a\ufffd".encode())


@pytest.mark.parametrize("message", [None, 1, {"a": 1}])
def test_anything_else_is_a_type_error_and_the_session_goes_on(opened, message):
    session, client, _ = opened
    with pytest.raises(MessageTypeError):
        session.send(message)
    assert session.send("on")
    assert client.receive_text() == "on"


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, True, "1000", None, 1000.0])
def test_a_close_code_that_may_not_be_sent_is_named(opened, code):
    session, _, _ = opened
    with pytest.raises(CloseCodeError) as caught:
        session.close(code)
    assert repr(code) in str(caught.value)
    assert session.is_open()


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, b"bytes", None])
def test_a_close_reason_that_is_too_long_or_no_text_is_refused(opened, reason):
    session, _, _ = opened
    with pytest.raises(CloseCodeError, match="reason"):
        session.close(1000, reason)
    assert session.is_open()


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 4999])
def test_a_close_code_that_may_be_sent_is(opened, code):
    session, client, handler = opened
    session.close(code, "é" * 61)
    assert not session.is_open()
    assert client.receive_close() == (code, "é" * 61)
    client.send(CLOSE, close_payload(code))
    assert handler.close() == (code, "é" * 61)


def test_a_closed_session_answers_false_and_does_nothing(opened):
    session, client, handler = opened
    assert session.is_open()
    assert "open" in repr(session)
    session.close()
    assert not session.send("late")
    with pytest.raises(MessageTypeError):
        session.send(3)
    session.close()
    assert client.receive_close() == (1000, "")
    client.send(CLOSE, close_payload(1000))
    assert client.at_end()
    handler.close()
    wait_until(lambda: session._ended, "the end of the session")
    session.room("lobby").join()
    assert session.rooms() == []
    assert not session.send("later")
    assert "closed" in repr(session)


def test_sends_of_many_threads_arrive_whole_and_each_threads_in_order(opened):
    session, client, _ = opened

    def write(thread):
        for n in range(300):
            assert session.send(f"{thread} {n} " + "x" * (n * 37 % 3000))

    found = {n: [] for n in range(6)}

    def read():
        for _ in range(6 * 300):
            thread, n, filler = client.receive_text().split(" ")
            assert len(filler) == int(n) * 37 % 3000
            found[int(thread)].append(int(n))

    run_all(read, *[lambda n=n: write(n) for n in range(6)])
    assert all(numbers == list(range(300)) for numbers in found.values())


def test_a_handler_may_stream_more_to_its_own_client_than_the_outbox_holds():
    class Streams(Recorder):
        def on_message(self, session, message):
            for n in range(200):
                assert session.send(f"{n:04}" + "x" * 50_000)
            session.send("end")

    handler = Streams()
    with endpoint(handler, max_outbox_bytes=100_000) as (app, port), RawClient(port, receive_buffer=8192) as client:
        client.text("go")
        for n in range(200):
            text = client.receive_text()
            assert (text[:4], len(text)) == (f"{n:04}", 50_004)
        assert client.receive_text() == "end"
        assert "slow_sessions_closed" not in app.metrics.snapshot()


def test_another_thread_that_streams_does_not_wait_and_has_the_client_closed():
    handler = Recorder()
    settings = {"max_outbox_bytes": 100_000, "close_timeout_s": 0.2, "send_timeout_s": 2 * DEADLINE_S}
    with endpoint(handler, **settings) as (_, port), RawClient(port, receive_buffer=4096):
        session, began = handler.session(), monotonic()
        while session.send("x" * 50_000):
            assert monotonic() - began < DEADLINE_S
        assert handler.close()[0] == 1013
        assert monotonic() - began < DEADLINE_S


def test_a_handler_that_waits_for_room_gives_up_after_its_timeout():
    took = []

    class Streams(Recorder):
        def on_message(self, session, message):
            while session.is_open():
                began = monotonic()
                session.send("x" * 50_000, timeout=0.1)
                took.append(monotonic() - began)

    handler = Streams()
    settings = {"max_outbox_bytes": 60_000, "close_timeout_s": 0.2, "send_timeout_s": 2 * DEADLINE_S}
    with endpoint(handler, **settings) as (_, port), RawClient(port, receive_buffer=4096) as client:
        client.text("go")
        assert handler.close()[0] == 1013
    assert 0.09 < max(took) < DEADLINE_S


def test_an_independent_client_sees_code_and_reason():
    handler = Recorder()
    with endpoint(handler) as (_, port), connect(f"ws://127.0.0.1:{port}/ws/test") as client:
        handler.session().close(4001, "kicked")
        with pytest.raises(Exception, match="4001"):
            client.recv(timeout=DEADLINE_S)
        assert (client.close_code, client.close_reason) == (4001, "kicked")
    assert handler.close() == (4001, "kicked")
