"""The examples of rooms that hold state, with real clients, over several processes and Redis."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.pages import blocks
from tests.ports import free_port
from tests.programs import DEADLINE_S, EXAMPLES, Program, ServerProgram, connect, receive, run_server, wait_until
from tests.redis_server import RedisServer


@pytest.fixture
def redis() -> Iterator[str]:
    with RedisServer() as server:
        yield server.url


@contextmanager
def gunicorn(application: str, workers: int, folder: Path) -> Iterator[str]:
    """The address of an application under gunicorn's own command, as the pages have it."""
    port = free_port()
    options = [f"-w{workers}", "--threads", "50", "-b", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "gunicorn", "-k", "wsthreads.gunicorn.ThreadWorker", *options, application]
    with Program(command, cwd=folder) as server:
        server.wait_for("Booting worker", times=workers)
        try:
            yield f"ws://127.0.0.1:{port}"
        except BaseException:
            print(server.log)
            raise
        assert server.end(signal.SIGTERM) == 0


# A poll


def enter(stack: ExitStack, url: str, **first: Any) -> Any:
    """A client that has got what comes first, which has these values. While a new worker has not reached Redis, which
    is slow on a busy machine, on_open fails after a second, as the pages say. Clients connect again then.
    """

    def entered() -> Any:
        client = stack.enter_context(connect(url))
        with suppress(ConnectionClosed):
            message = json.loads(receive(client))
            assert first.items() <= message.items()
            return client

    return wait_until(entered, "the first message")


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_the_count_of_a_poll_is_right_over_four_workers(tmp_path: Path, redis: str, language: str) -> None:
    if language == "python":
        (tmp_path / "poll.py").write_text(blocks("docs/how-to/room-state", "python")[0])
    folder, file = (EXAMPLES, "poll.js") if language == "javascript" else (tmp_path, "poll.py")
    choices = ["Soup", "Salad", "Pizza"]
    with gunicorn(f'wsthreads:create_app("{file}", redis="{redis}")', 4, folder) as url, ExitStack() as stack:
        voters = [enter(stack, f"{url}/ws/poll?user=user{number}", type="poll") for number in range(30)]
        barrier = threading.Barrier(len(voters))

        def vote(number: int) -> None:
            barrier.wait(DEADLINE_S)
            for turn in range(10):
                voters[number].send(choices[(number + turn) % 3])

        threads = [threading.Thread(target=vote, args=(number,), name="voter") for number in range(30)]
        for thread in threads:
            thread.start()
        for voter in voters:
            newest = -1
            while newest < 300:
                result = json.loads(receive(voter))
                if result["changes"] > newest:
                    newest, counts = result["changes"], result["counts"]
            assert newest == 300
            assert counts == dict.fromkeys(choices, 10)
        for thread in threads:
            thread.join(DEADLINE_S)


# Cursors


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_cursors_reach_the_members_in_other_processes(tmp_path: Path, redis: str, language: str) -> None:
    path = EXAMPLES / "cursors.js"
    if language == "python":
        path = tmp_path / "cursors.py"
        path.write_text(blocks("docs/how-to/cursors", "python")[0])
    with ExitStack() as stack:
        servers = [stack.enter_context(run_server(path, "--redis", redis)) for _ in range(2)]
        ann, bob = (
            stack.enter_context(connect(f"{server.ws_url}/ws/cursors?user={name}"))
            for server, name in zip(servers, ("ann", "bob"), strict=True)
        )
        for client in ann, bob:
            assert json.loads(receive(client))["type"] == "welcome"
        for number in range(100):
            ann.send(json.dumps({"x": number / 100, "y": 0.5}))
        seen: list[dict[str, Any]] = []
        while len(seen) < 100:  # one that reads gets all of them
            message = json.loads(receive(bob))
            if message["type"] == "cursor":
                seen.append(message)
        assert seen == [{"type": "cursor", "user": "ann", "x": number / 100, "y": 0.5} for number in range(100)]


# A chat with a history


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_client_that_was_cut_off_misses_nothing_at_another_process(tmp_path: Path, redis: str, language: str) -> None:
    path = tmp_path / ("chat.js" if language == "javascript" else "chat.py")
    path.write_text(blocks("docs/how-to/history", language)[0])
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(run_server(path, "--redis", redis, "--history-messages", "1000")) for _ in range(2)
        )
        ann, bob = (enter(stack, f"{server.ws_url}/ws/chat", complete=True) for server in (first, second))
        since = ""
        for number in range(10):
            ann.send(str(number))
        ids = []
        for _ in range(10):
            message = json.loads(receive(bob))
            since = message["position"]
            ids.append(message["id"])
        bob.socket.close()
        for number in range(10, 100):
            ann.send(str(number))
        for _ in range(100):
            receive(ann)
        again = stack.enter_context(connect(f"{first.ws_url}/ws/chat?since={since}"))
        missed = []
        while (message := json.loads(receive(again)))["type"] == "message":
            if message["id"] not in ids:
                missed.append(message["text"])
        assert message["complete"] is True
        assert missed == [str(number) for number in range(10, 100)]
        late = stack.enter_context(connect(f"{second.ws_url}/ws/chat?since=nonsense"))
        last = [json.loads(receive(late)) for _ in range(51)]
        assert [message["text"] for message in last[:50]] == [str(number) for number in range(50, 100)]
        assert last[50]["complete"] is False


# The game


class Player:
    """A client of the game: a thread of its own keeps all states that it receives."""

    def __init__(self, server: ServerProgram, name: str) -> None:
        self.name = name
        self.states: list[dict[str, Any]] = []
        self.again = 0
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(connect(f"{server.ws_url}/ws/game?user={name}&room=garden"))
        self._thread = threading.Thread(target=self._read, name=f"player-{name}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(ConnectionClosed):
            for text in self._socket:
                message = json.loads(text)
                if message["type"] == "state":
                    self.states.append(message)
                else:
                    self.again += 1

    def state(self, what: Callable[[dict[str, Any]], Any] = bool) -> dict[str, Any]:
        """The last state, once `what` is true of it."""

        def found() -> dict[str, Any] | None:
            return self.states[-1] if self.states and what(self.states[-1]) else None

        result: dict[str, Any] = wait_until(found, f"a state of {self.name}")
        return result

    def me(self, state: dict[str, Any]) -> dict[str, Any] | None:
        return next((player for player in state["players"] if player["name"] == self.name), None)

    def steer(self, x: float, y: float) -> None:
        self._socket.send(json.dumps({"x": x, "y": y}))

    def catch_a_coin(self) -> None:
        """Go to the coin until this player, or another one, has caught it."""
        coin = self.state()["coin"]

        def goes_on() -> bool:
            state = self.states[-1]
            me = self.me(state)
            if me is not None and state["coin"] == coin:
                x, y = coin["x"] - me["x"], coin["y"] - me["y"]
                length = max(math.hypot(x, y), 1)
                self.steer(x / length, y / length)
            return bool(state["coin"] != coin)

        wait_until(goes_on, f"{self.name} at the coin")
        self.steer(0, 0)

    def end(self) -> None:
        self._stack.close()
        self._thread.join(DEADLINE_S)


def names(state: dict[str, Any]) -> list[str]:
    return [player["name"] for player in state["players"]]


def check(players: list[Player]) -> None:
    """All have seen one game: each tick once and the same for all, in order, and never an older owner after a newer."""
    ticks: dict[tuple[int, int], dict[str, Any]] = {}
    for player in players:
        numbers = [(state["owner"], state["tick"]) for state in player.states]
        assert numbers == sorted(set(numbers)), player.name
        for state in player.states:
            assert ticks.setdefault((state["owner"], state["tick"]), state) == state


def test_a_game_is_one_game_over_three_processes_and_goes_on_when_its_owner_is_killed(redis: str) -> None:
    with ExitStack() as stack:
        arguments = [EXAMPLES / "game.js", "--redis", redis]
        first, second, third = (stack.enter_context(run_server(*arguments)) for _ in range(3))

        def enter(server: ServerProgram, name: str) -> Player:
            player = Player(server, name)
            stack.callback(player.end)
            return player

        ann = enter(first, "ann")
        ann.state(lambda state: names(state) == ["ann"])  # so the first process owns the room
        bob, cid, dan = enter(second, "bob"), enter(third, "cid"), enter(third, "dan")
        dan.state(lambda state: len(names(state)) == 4)
        eve = enter(second, "eve")
        eve.state(lambda state: sorted(names(state)) == ["ann", "bob", "cid", "dan"])
        eve.steer(1, 0)
        for player in ann, cid:
            while (me := player.me(player.state())) is None or me["coins"] == 0:
                player.catch_a_coin()
        last = eve.state()
        saved = eve.state(lambda state: state["tick"] > last["tick"] + 20)
        coins = {player["name"]: player["coins"] for player in saved["players"]}
        assert {state["owner"] for player in (ann, bob, cid, dan, eve) for state in player.states} == {last["owner"]}
        check([ann, bob, cid, dan, eve])

        first.process.send_signal(signal.SIGKILL)
        after = eve.state(lambda state: state["owner"] > last["owner"])
        ann_again = enter(second, "ann")
        state = ann_again.state(lambda state: (ann_again.me(state) or {}).get("isHere"))
        assert sorted(names(state)) == ["ann", "bob", "cid", "dan"]  # the seat was kept, and eve still watches
        assert {player["name"]: player["coins"] for player in state["players"]} == coins
        assert after["tick"] > last["tick"]
        cid.steer(1, 0), ann_again.steer(1, 0)
        for player in cid, ann_again:
            player.state(lambda state, player=player: player.me(state)["x"] == 578)  # type: ignore[misc]
        check([ann, bob, cid, dan, eve, ann_again])
        for server in second, third:
            assert "Traceback" not in server.log
            assert server.failures() == []


def test_the_race_in_python_goes_on_when_its_owner_ends(tmp_path: Path, redis: str) -> None:
    path = tmp_path / "race.py"
    path.write_text(blocks("docs/how-to/game", "python")[0])
    with ExitStack() as stack:
        first, second = (stack.enter_context(run_server(path, "--redis", redis)) for _ in range(2))

        def place(client: Any, name: str) -> int:
            while not isinstance(state := json.loads(receive(client)), dict) or name not in state:
                pass
            return int(state[name])

        ann = stack.enter_context(connect(f"{first.ws_url}/ws/race?user=ann"))
        assert place(ann, "ann") == 0
        bob = stack.enter_context(connect(f"{second.ws_url}/ws/race?user=bob"))
        assert place(bob, "bob") == 0
        for client in ann, bob:
            client.send("right")
        while place(bob, "ann") < 50:
            pass
        at = place(bob, "bob")
        first.end(signal.SIGTERM)  # on_room_end saves
        later = place(bob, "bob")
        assert later > at - 5
        while place(bob, "bob") < later + 20:
            pass
        assert "Traceback" not in second.log
