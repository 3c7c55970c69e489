"""What the page about a server is told of sessions that wait for their clients."""

import pytest

from tests.dashboard_viewer import Viewer
from tests.programs import wait_until
from tests.speakers import Speaker
from tests.wire import RawClient, Recorder, endpoint
from wsthreads.dashboard import Dashboard


@pytest.fixture
def world():
    handler = Recorder()
    with endpoint(handler, resume_s=60, dashboard=Dashboard()) as (app, port):
        handler.app, handler.port = app, port
        with Viewer(f"ws://127.0.0.1:{port}") as viewer:
            handler.viewer = viewer
            yield handler


def sample(world, wanted):
    return world.viewer.next("sample", lambda message: wanted(message["endpoints"]["/ws/test"]))["endpoints"][
        "/ws/test"
    ]


def test_samples_have_suspended_sessions_resumes_and_why_there_was_none(world):
    with Speaker(world.port).begin() as client:
        world.session().send("one")
        assert client.next() == "one"
        now = sample(world, lambda now: now["unacknowledged_bytes"])
        assert (now["sessions"], now["suspended"], now["unacknowledged_bytes"]) == (1, 0, 5)
        assert (now["sessions_suspended_total"], now["sessions_resumed_total"]) == (0, 0)
        client.lose()
        now = sample(world, lambda now: now["suspended"] and now["sessions_suspended_total"])
        assert (now["sessions"], now["suspended"], now["sessions_suspended_total"]) == (1, 1, 1)
        assert not any(name.startswith("resumes_refused") for name in now)
        assert client.come_back().resumed
        client.ack()
        now = sample(world, lambda now: now["sessions_resumed_total"] and not now["unacknowledged_bytes"])
        assert (now["sessions"], now["suspended"], now["sessions_resumed_total"]) == (1, 0, 1)
        with Speaker(world.port) as stranger:
            assert not stranger.come_back("nobody.nothing", 0).resumed
        now = sample(world, lambda now: "resumes_refused_unknown_total" in now)
        assert now["resumes_refused_unknown_total"] == 1


def test_a_suspended_session_is_listed_and_can_be_closed(world):
    with Speaker(world.port).begin() as client, RawClient(world.port) as plain:
        session, other = world.session(), world.session()
        assert {plain.status, client.wire.status} == {101}
        session = session if session._channel.outbox.is_keeping else other
        client.lose()
        wait_until(lambda: not session.is_connected(), "its loss")
        session.send("while away")
        world.viewer.send(type="watch", list="sessions")
        rows = {row["id"]: row for row in world.viewer.next("sessions", lambda it: it["total"] == 2)["rows"]}
        row = rows.pop(session.id)
        assert (row["open"], row["connected"], row["bytes_waiting"], row["unacknowledged_bytes"]) == (
            True,
            False,
            12,
            12,
        )
        assert row["round_trip_s"] is None
        ((other,),) = ([*rows.values()],)
        assert (other["open"], other["connected"], other["unacknowledged_bytes"]) == (True, True, 0)
        world.viewer.send(type="watch", list="session", id=session.id)
        details = world.viewer.next("session")
        assert (details["gone"], details["connected"], details["survives"]) == (False, False, True)
        assert client.token.partition(".")[2] not in str(details), "no secret"
        world.viewer.send(type="watch", list="session", id=other["id"])
        assert world.viewer.next("session", lambda it: it["id"] == other["id"])["survives"] is False
        assert world.viewer.ask(type="close", session=session.id, code=4000, reason="bye", endpoint="/ws/test")["ok"]
        assert world.close() == (4000, "bye")
        client.open().hello(client.token)
        assert client.receive_close() == (4000, "bye")
