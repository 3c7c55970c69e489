"""What a stolen, guessed or old token gains: nothing. And what a client that lies about counts gains."""

import logging

import pytest

from tests.programs import wait_until
from tests.sessions.test_resume import SUSPEND, Story, World
from tests.speakers import OFFER, Speaker
from tests.wire import RawClient, endpoint
from wsthreads import HandshakeRefused, Refusal
from wsthreads.protocol import envelope
from wsthreads.sessions.secrets import MOST

SETTINGS = {"resume_s": 60, "allowed_origins": ["https://a.example", "https://b.example"]}


class Named(Story):
    """Its users are what the parameter says."""

    def __init__(self):
        super().__init__()
        self.refuses = None

    def on_handshake(self, request):
        if self.refuses is not None:
            raise self.refuses
        request.user = request.get_parameter("user")


@pytest.fixture
def world():
    handler = Named()
    with endpoint(handler, **SETTINGS) as (app, port):
        yield World(app, port, handler)


def away(world, **options):
    """A client whose session is suspended."""
    client = Speaker(world.port, **options).begin()
    client.send("one")
    assert client.next() == "echo one"
    assert client.heartbeat() == 1
    client.lose()
    world.wait_suspended()
    return client


def thief_of(client, world, **options):
    thief = Speaker(world.port, **options)
    thief.token, thief.received = client.token, client.received
    return thief


def assert_untouched(world, client):
    """The client's session still waits, and goes on for the client itself."""
    assert len(world.endpoint.suspensions) == 1
    assert world.handler.calls[:3] == ["open", "one", SUSPEND]
    assert not any(call[0] == "close" for call in world.handler.calls[:3])
    assert client.come_back().resumed
    client.send("two")
    assert client.next() == "echo two"


def test_a_guessed_secret_is_unknown(world):
    with away(world) as client, Speaker(world.port) as thief:
        session_id, _, secret = client.token.partition(".")
        others = ["", secret[:-1], f"{secret}x", f"{secret}.", "A" * 22]
        guesses = [*(f"{session_id}.{other}" for other in others), f"{session_id[:-1]}.{secret}", f"x{client.token}"]
        for guess in [*guesses, ".", session_id, f".{secret}"]:
            welcome = thief.come_back(token=guess, received=0)
            assert (welcome.resumed, welcome.why, welcome.received) == (False, "unknown", 0), guess
            assert not thief.token.startswith(session_id)
            thief.leave()
        assert_untouched(world, client)


def test_a_token_is_of_no_use_at_another_endpoint():
    handlers = [Story(), Story()]
    with endpoint(handlers[0], **SETTINGS) as (app, port):
        app.add_handler("/ws/other", handlers[1])
        world = World(app, port, handlers[0])
        with away(world) as client, thief_of(client, world, path="/ws/other") as thief:
            assert thief.come_back().why == "unknown"
            assert_untouched(world, client)


@pytest.mark.parametrize(("mine", "theirs"), [("ann", "bob"), ("ann", None), (None, "ann")])
def test_a_token_is_of_no_use_to_another_user(world, mine, theirs):
    def path(user):
        return "/ws/test" if user is None else f"/ws/test?user={user}"

    with away(world, path=path(mine)) as client, thief_of(client, world, path=path(theirs)) as thief:
        assert thief.come_back().why == "user"
        thief.leave()
        assert_untouched(world, client)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [("https://a.example", "https://b.example"), ("https://a.example", None), (None, "https://a.example")],
)
def test_a_token_is_of_no_use_to_another_origin(world, mine, theirs):
    def headers(origin):
        return {} if origin is None else {"Origin": origin}

    with away(world, headers=headers(mine)) as client, thief_of(client, world, headers=headers(theirs)) as thief:
        assert thief.come_back().why == "origin"
        thief.leave()
        assert_untouched(world, client)


@pytest.mark.parametrize("refusal", [HandshakeRefused(401, "expired"), ValueError("broken")], ids=repr)
def test_a_refused_handshake_gains_nothing(world, refusal):
    with away(world) as client:
        world.handler.refuses = refusal
        with RawClient(world.port, headers=OFFER) as refused:
            assert refused.status in (401, 500)
        world.handler.refuses = None
        assert_untouched(world, client)


def test_a_refusal_by_close_code_gains_nothing(world):
    with away(world) as client:
        world.handler.on_handshake = None
        world.endpoint.handler._calls["on_handshake"] = lambda request: Refusal(4003, "no")
        with Speaker(world.port).open() as refused:
            assert refused.is_refused() == (4003, "no")
        del world.endpoint.handler._calls["on_handshake"]
        assert_untouched(world, client)


def test_a_banned_user_s_token_gains_nothing(world):
    with away(world, path="/ws/test?user=ann") as client:
        world.endpoint.user("ann").close(4003, "banned", ban_s=60)
        wait_until(lambda: world.handler.calls[-1] == ("close", 4003, "banned"))
        with RawClient(world.port, client.path, OFFER) as refused:
            assert refused.status == 403
        with thief_of(client, world) as thief:
            assert thief.come_back().why == "unknown"
        wait_until(lambda: world.handler.calls.count("open") == 2)


def test_a_token_of_a_session_that_has_ended_is_unknown(world):
    with away(world) as client:
        world.timers.advance(60)
        wait_until(lambda: world.endpoint.session_count() == 0)
        assert client.come_back().why == "unknown"
        client.leave()
    wait_until(lambda: world.endpoint.session_count() == 0)
    with thief_of(client, world) as thief:
        assert thief.come_back().why == "unknown"


def test_an_earlier_token_is_valid_until_the_client_has_shown_that_it_has_a_later_one(world):
    with away(world) as client:
        first = client.token
        client.come_back()
        client.lose()  # the welcome may have been lost
        world.wait_suspended()
        assert client.come_back(token=first).resumed
        second = client.token
        client.put(envelope.ack(client.received))
        assert client.heartbeat() == client.sent
        with thief_of(client, world) as thief:
            assert thief.come_back(token=first).why == "unknown"
            assert thief.come_back(token=second, received=client.received).resumed


def test_a_message_confirms_the_last_token_as_an_acknowledgement_does(world):
    with away(world) as client:
        first = client.token
        client.come_back()
        client.send("two")
        assert client.next() == "echo two"
        with thief_of(client, world) as thief:
            assert thief.come_back(token=first).why == "unknown"


def test_a_delayed_hello_with_an_earlier_token_does_not_lock_the_client_out(world):
    with away(world) as client, thief_of(client, world) as late:
        late.open()  # the client gives this connection up, and its hello arrives late
        assert client.come_back().resumed
        late.hello(late.token)
        assert late.greet().resumed
        assert client.wire.at_end()
        assert client.come_back().resumed


def test_a_client_that_never_confirms_a_token_has_few_of_them(world):
    with away(world) as client:
        first = client.token
        for _ in range(2 * MOST):
            client.come_back(token=first)
        assert len(world.handler.sessions[0]._channel.secrets) <= MOST
        assert client.come_back(token=first).resumed


def test_more_received_than_was_sent_is_a_protocol_error_and_the_session_goes_on(world):
    with away(world) as client, thief_of(client, world) as liar:
        for count in (2, 2**53 - 1):
            liar.open().hello(client.token, count)
            assert liar.is_refused()[0] == 1002
        assert_untouched(world, client)


def test_less_received_than_was_acknowledged_is_another_session(world):
    with away(world) as client, thief_of(client, world) as other:
        assert other.come_back(received=0).why == "counts"
        other.leave()
        assert_untouched(world, client)


@pytest.mark.parametrize("kind", [envelope.ack, envelope.heartbeat])
@pytest.mark.parametrize("count", [0, 3, 2**53 - 1])
def test_a_wrong_acknowledgement_ends_the_session(world, kind, count):
    with Speaker(world.port).begin() as client:
        client.send("one")
        client.send("two")
        assert client.all(2) == ["echo one", "echo two"]
        client.ack()
        client.put(kind(count))
        assert client.receive_close()[0] == 1002
        wait_until(lambda: world.handler.calls[-1][:2] == ("close", 1002))
        client.open().hello(client.token)
        assert client.is_refused()[0] == 1002  # told again, for as long as the session would have waited


@pytest.mark.parametrize(
    "message",
    ["\x10h{}", '\x10w{"resumed":true}', "\x10?", "\x10", "\x10a", "\x10a1x", b"\x10z1:", "\x10a-1"],
    ids=repr,
)
def test_what_the_protocol_does_not_have_ends_the_session(world, message):
    with Speaker(world.port).begin() as client:
        client.put(message)
        assert client.receive_close()[0] == 1002
        wait_until(lambda: world.handler.calls[-1][:2] == ("close", 1002))
    assert len(world.endpoint.suspensions) == 0


def test_a_client_that_acknowledges_nothing_is_closed_in_bounded_memory():
    handler = Story()
    settings = {**SETTINGS, "max_resume_bytes": 300_000, "max_outbox_bytes": 200_000, "close_timeout_s": 0.3}
    with endpoint(handler, **settings) as (app, port), Speaker(port).begin() as client:
        wait_until(lambda: handler.sessions)
        session, sent = handler.sessions[0], 0
        while session.send("x" * 1000) and sent < 2000:  # another thread than the session's
            sent += 1
        assert 400 < sent < 700
        assert session._channel.outbox.unacknowledged_bytes < 600_000
        assert client.receive_close()[0] == 1013
        wait_until(lambda: handler.calls[-1][:2] == ("close", 1013))
        wait_until(lambda: app.session_count == 0)


def test_a_client_that_acknowledges_gets_more_than_the_window(world):
    with Speaker(world.port).begin() as client:
        wait_until(lambda: world.handler.sessions)
        session = world.handler.sessions[0]
        for _ in range(20):
            for _ in range(100):
                assert session.send("x" * 1000)
            client.all(100)
            client.ack()
        assert client.heartbeat() == 0


def test_too_much_for_a_client_that_is_away_ends_its_session():
    handler = Story()
    with endpoint(handler, **SETTINGS, max_resume_bytes=10_000) as (app, port), Speaker(port).begin() as client:
        wait_until(lambda: handler.sessions)
        world = World(app, port, handler)
        client.lose()
        world.wait_suspended()
        session, sent = handler.sessions[0], 0
        while session.send("x" * 1000):
            sent += 1
        assert 8 <= sent <= 12
        wait_until(lambda: handler.calls[-1][:2] == ("close", 1013))
        assert "too slow" in handler.calls[-1][2]
        assert client.come_back().why == "unknown"


def test_no_token_is_in_a_log_a_page_or_a_repr(world, caplog):
    caplog.set_level(logging.DEBUG)
    with away(world) as client:
        tokens = {client.token}
        with thief_of(client, world, path="/ws/test?user=x") as thief:
            thief.come_back()
            tokens.add(thief.token)
        client.come_back()
        tokens.add(client.token)
        client.come_back(token=f"{client.token}x")
        tokens.add(client.token)
        client.open().hello("\x10")
        session = world.handler.sessions[0]
        secrets = {token.partition(".")[2] for token in tokens}
        hello = envelope.parse(envelope.hello(client.token))
        things = [session, session._channel, session._channel.secrets, hello, client.welcome]
        shown = [repr(thing) for thing in (*things, session.request.environ, session.request.headers)]
        shown += [record.getMessage() + repr(vars(record)) for record in caplog.records]
        assert caplog.records
        for secret in secrets:
            assert len(secret) == 22
            assert not any(secret in text for text in shown)


def test_a_token_that_no_utf_8_can_carry_is_a_mistake_of_the_client(world, caplog):
    with Speaker(world.port) as other:
        other.open().put('\x10h{"resume":{"token":"id.\\ud800","received":0}}')
        assert other.is_refused() == (1002, "'token' must be 1 to 256 visible ASCII characters in a hello or welcome")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
