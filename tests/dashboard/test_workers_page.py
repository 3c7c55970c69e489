"""The page under gunicorn, with several workers over Redis: it shows and reaches the sessions of all of them."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import pytest

from tests.browsing import button, expect, has_no_sideways_scrolling, low_contrasts
from tests.dashboard.test_who_page import SIZES, person, user_view
from tests.dashboard_viewer import Viewer
from tests.dashboard_windows import ended, row, tab
from tests.programs import Program, connect, receive, wait_until
from tests.wire import RawClient

TOKEN = "a-token-of-16-characters-or-more"


@pytest.fixture
def workers(redis_server):
    redis_server.client.flushall()  # bans of another test
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "102", "-w", "2"]
    command += ["--bind", "127.0.0.1:0", "--graceful-timeout", "5", "tests.dashboard_app:app"]
    environment = {"CHAT_REDIS": redis_server.url, "WSTHREADS_DASHBOARD_TOKEN": TOKEN}
    with Program(command, env=environment) as server:
        server.port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        server.wait_for("Booting worker with pid", times=2)
        yield server


@pytest.fixture
def people(workers):
    """Two clients in each worker: {pid: {user: client}}."""
    with ExitStack() as stack:
        yield in_each(workers, stack, "/ws/chat", "user", "user-{:02}", 2)


def in_each(workers, stack, path, parameter, value, count):
    """So many clients in each worker, each with another value of a parameter: {pid: {value: client}}."""
    found = {}
    for n in range(90):
        name = value.format(n)
        client = stack.enter_context(connect(f"ws://127.0.0.1:{workers.port}{path}?{parameter}={name}"))
        pid = int(receive(client).removeprefix("process "))
        if len(found.setdefault(pid, {})) < count:
            found[pid][name] = client
        else:
            client.close()
        if sum(map(len, found.values())) == 2 * count:
            return found
    raise AssertionError(f"all clients are in {list(found)}")


@pytest.fixture
def viewer(workers):
    with Viewer(f"ws://127.0.0.1:{workers.port}", token=TOKEN) as viewer:
        yield viewer


@pytest.fixture
def elsewhere(viewer, people):
    """(user, client) pairs in the worker that does not serve the viewer."""
    [found] = [clients for pid, clients in people.items() if pid != viewer.hello["pid"]]
    return list(found.items())


CHAT = {"endpoint": "/ws/chat"}


def test_the_sessions_of_all_workers_are_listed_and_a_filter_finds_each(viewer, people, elsewhere):
    message = viewer.watch("sessions")
    assert (message["matched"], message["processes"]) == (4, 2)
    assert {row["user"]: row["pid"] for row in message["rows"]} == {
        user: pid for pid, clients in people.items() for user in clients
    }
    user = elsewhere[0][0]
    found = viewer.watch("sessions", filter=user)
    assert ([row["user"] for row in found["rows"]], found["total"]) == ([user], 4)
    assert viewer.watch("session", id=found["rows"][0]["id"])["pid"] != viewer.hello["pid"]
    [room] = viewer.watch("rooms")["rows"]
    assert room == {**CHAT, "name": "garden", "members": 4, "history": 0}
    assert {row["user"] for row in viewer.watch("room", **CHAT, room="garden")["rows"]} == {
        user for clients in people.values() for user in clients
    }


def test_actions_reach_the_sessions_of_another_worker(viewer, elsewhere):
    (ann, client), (_, other) = elsewhere
    [row] = viewer.watch("sessions", filter=ann)["rows"]
    answer = viewer.ask(type="send", **CHAT, session=row["id"], message="hello")
    assert (answer["ok"], answer["text"]) == (True, "sent")
    assert receive(client) == "hello"
    assert viewer.ask(type="send", **CHAT, user=ann, message="again")["text"] == "sent to 1 session"
    assert receive(client) == "again"
    assert viewer.ask(type="close", **CHAT, session=row["id"], code=4000, reason="bye")["ok"]
    wait_until(lambda: ended(client), "the close")
    assert (client.close_code, client.close_reason) == (4000, "bye")
    wait_until(lambda: "has ended" in viewer.ask(type="close", **CHAT, session=row["id"])["text"])
    assert viewer.ask(type="close_room", **CHAT, room="garden", code=4001)["text"] == "closing 3 sessions with 4001"
    wait_until(lambda: ended(other), "the close of the room")
    assert other.close_code == 4001


def test_a_user_of_another_worker_is_banned_everywhere(viewer, elsewhere, workers):
    user, client = elsewhere[0]
    answer = viewer.ask(type="kick_user", **CHAT, user=user, code=4001, reason="", ban_s=60)
    assert answer["text"] == "closing 1 session with 4001, banned for 60 s"
    wait_until(lambda: ended(client), "the kick")
    for _ in range(4):
        with RawClient(workers.port, f"/ws/chat?user={user}") as refused:
            assert refused.status == 403


GAME = {"endpoint": "/ws/game"}


def test_what_a_room_of_another_worker_holds(workers, viewer, redis_server):
    """Its owner, attributes, history and waiting posts, though the page's worker has no member in it."""
    with ExitStack() as stack:
        found = in_each(workers, stack, "/ws/game", "table", "table-{}", 1)
        [(pid, clients)] = [each for each in found.items() if each[0] != viewer.hello["pid"]]
        [(table, client)] = clients.items()
        room = {**GAME, "room": table}

        def held(wanted):
            message = viewer.watch("room_state", **room)
            return message if wanted(message) else viewer.next("room_state", wanted)

        message = held(lambda message: message["owner"] is not None and message["attributes"]["count"])
        assert (message["owner"]["pid"], message["processes"]) == (pid, 2)
        assert message["attributes"]["rows"] == [{"key": "owner", "value": str(pid)}]
        client.send("hello")
        assert receive(client) == "hello"
        [row] = held(lambda message: message["history"]["messages"] == 1)["history"]["rows"]
        assert row["bytes"] == 5
        assert viewer.ask(type="read_message", **room, number=row["number"])["text"] == "hello"
        client.send("stop")
        for n in range(200):  # more than the owner takes at once
            client.send(str(n))
        held(lambda message: message["owner"]["posts_waiting"] == 200)
        [listed] = [row for row in viewer.watch("rooms")["rows"] if row["name"] == table]
        assert (listed["members"], listed["history"], listed["owner"]["pid"]) == (1, 1, pid)
        client.send("go on")
        for n in range(200):
            assert receive(client) == str(n)
        held(lambda message: message["owner"]["posts_waiting"] == 0 and message["owner"]["tick_lag_s"] is not None)


@pytest.mark.parametrize("size", SIZES)
def test_the_page_names_the_worker_of_each_session(people, workers, window, picture, size):
    page = window(f"http://127.0.0.1:{workers.port}/_wsthreads/#token={TOKEN}", **SIZES[size])
    tab(page, "Sessions").click()
    for pid, clients in people.items():
        for user in clients:
            expect(row(page, user).locator(".worker")).to_have_text(str(pid))
    expect(page.locator("#sessions-count")).to_have_text("4 sessions in 2 workers")
    picture(page, f"workers-{size}")
    assert has_no_sideways_scrolling(page)
    assert low_contrasts(page) == []
    tab(page, "Rooms").click()
    row(page, "garden").get_by_role("button").click()
    for clients in people.values():  # one of them is in the other worker
        tab(page, "Sessions").click()
        user, client = next(iter(clients.items()))
        page.get_by_role("searchbox", name="Filter sessions").fill(user)
        expect(page.locator("#sessions-rows tr")).to_have_count(1)
        expect(row(page, user)).to_be_visible()
        tab(page, "Rooms").click()
        expect(page.locator("#rooms-rows tr").first.locator("[data-label=History]")).to_have_text("0")
        person(page, user).get_by_role("button").click()
        button(user_view(page), "Kick user …").click()
        button(page.get_by_role("dialog"), "Kick").click()
        wait_until(lambda client=client: ended(client), "the kick")
        expect(user_view(page)).to_contain_text("This user has no sessions.")
        picture(page, f"workers-user-{size}")
        button(user_view(page), "Close this view").click()
