"""The page's lists of several processes, which ask each other. Here they are apps in one process."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.programs import connect, receive
from wsthreads import WebSocketApp
from wsthreads.dashboard.requests import MAX_LIMIT, Watch
from wsthreads.dashboard.workers import KIND, Workers


class Chat:
    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        for room in (session.get_parameter("rooms") or "lobby").split(","):
            session.room(room).join()
        session.send("hi")


class Others:
    """Stands in for a link: what goes to other processes is JSON."""

    def __init__(self):
        self.functions = {}
        self.processes = []  # [(pid, host, Others)]
        self.asked = []

    def answer(self, kind, function):
        self.functions[kind] = function

    def ask(self, kind, argument, timeout_s=1.0, enough=None):
        self.asked.append(argument)
        answers = []
        for pid, host, other in self.processes:
            value = json.loads(json.dumps(other.functions[kind](json.loads(json.dumps(argument)))))
            answers.append({"pid": pid, "host": host, "process": f"p{pid}", "value": value})
            if enough is not None and enough(value):
                break
        return answers


@pytest.fixture
def world(serve):
    """Two apps with a client each time: ``world.join(0, "user=ann")``."""

    class World:
        def __init__(self):
            self.links = [Others(), Others()]
            self.apps = [WebSocketApp(), WebSocketApp()]
            for app in self.apps:
                app.add_handler("/ws/chat", Chat)
            self.servers = [serve(app) for app in self.apps]
            self.workers = [
                Workers(lambda app=app: app.endpoints, link) for app, link in zip(self.apps, self.links, strict=True)
            ]
            self.links[0].processes = [(2, "other-host", self.links[1])]

        def join(self, nth, query):
            client = stack.enter_context(connect(f"{self.servers[nth].ws_url}/ws/chat?{query}", close_timeout=0.5))
            assert receive(client) == "hi"
            return client

        def list(self, name, **options):
            return self.workers[0].list(Watch(7, name, **options))

    with ExitStack() as stack:
        yield World()


def test_sessions_of_all_processes_are_listed_with_their_process(world):
    world.join(0, "user=ann")
    world.join(1, "user=bob")
    message = world.list("sessions")
    assert (message["total"], message["matched"], message["processes"], message["request"]) == (2, 2, 2, 7)
    assert [row["user"] for row in message["rows"]] == ["ann", "bob"]
    assert [(row["pid"], row["host"]) for row in message["rows"]][1] == (2, "other-host")


def test_a_filter_finds_a_client_of_another_process(world):
    world.join(0, "user=ann")
    world.join(1, "user=bob&rooms=garden")
    for needle in ("BOB", "gard"):
        message = world.list("sessions", filter=needle)
        assert (message["total"], [row["user"] for row in message["rows"]]) == (2, ["bob"])
    assert [row["user"] for row in world.list("sessions", room="garden", endpoint="/ws/chat")["rows"]] == ["bob"]


def test_lists_are_sorted_and_cut_off_over_all_processes(world):
    for n in range(6):
        world.join(n % 2, f"user=user-{n}")
    message = world.list("sessions", limit=3)
    assert [row["user"] for row in message["rows"]] == ["user-0", "user-1", "user-2"]
    assert (message["matched"], world.links[0].asked[0]["limit"]) == (6, 3), "no process sends more than is shown"
    message = world.list("sessions", limit=3, descending=True)
    assert [row["user"] for row in message["rows"]] == ["user-5", "user-4", "user-3"]
    most = world.list("sessions", limit=6, sort="bytes_in", descending=True)["rows"]
    sizes = [row["bytes_in"] for row in most]
    assert sizes == sorted(sizes, reverse=True)


def test_members_of_a_room_are_added_up(world):
    world.join(0, "user=ann&rooms=lobby,here")
    world.join(1, "user=bob&rooms=lobby,there")
    message = world.list("rooms")
    assert [(row["name"], row["members"]) for row in message["rows"]] == [("lobby", 2), ("here", 1), ("there", 1)]
    assert (message["total"], message["matched"]) == (3, 3)
    message = world.list("rooms", filter="here", limit=1)
    assert (message["total"], message["matched"], len(message["rows"])) == (None, 2, 1)
    assert world.links[0].asked[-1]["limit"] == MAX_LIMIT


def test_a_session_of_another_process_is_looked_into(world):
    world.join(0, "user=ann")
    world.join(1, "user=bob&token=sesame")
    ann, bob = world.list("sessions")["rows"]
    details = world.list("session", session_id=bob["id"])
    assert (details["gone"], details["user"], details["pid"], details["host"]) == (False, "bob", 2, "other-host")
    assert details["parameters"]["token"] == "hidden (6 characters)"
    asked = len(world.links[0].asked)
    assert world.list("session", session_id=ann["id"])["user"] == "ann"
    assert len(world.links[0].asked) == asked, "it is here"
    assert world.list("session", session_id="nobody")["gone"] is True


def test_the_sessions_of_a_user_are_those_of_all_processes(world):
    for nth in (0, 1, 1):
        world.join(nth, "user=ann")
    world.join(1, "user=bob")
    message = world.list("user", endpoint="/ws/chat", user="ann")
    assert (message["matched"], len(message["rows"])) == (3, 3)


@pytest.mark.parametrize("question", [None, 7, {}, {"list": "all"}, {"list": "sessions", "limit": 10**9}])
def test_a_question_that_is_none_has_no_answer(world, question):
    assert world.links[1].functions[KIND](question) is None


@pytest.mark.parametrize("answer", [None, 7, {}, {"type": "rooms"}])
def test_an_answer_that_is_none_is_passed_over(world, answer):
    world.join(0, "user=ann")
    world.links[1].functions[KIND] = lambda question: answer
    message = world.list("sessions")
    assert (message["matched"], message["processes"]) == (1, 1)
