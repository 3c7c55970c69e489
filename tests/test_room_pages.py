"""The examples of the pages about rooms that hold state: history, attributes, limits, the game loop, cursors.

tests/test_room_examples.py runs them over several processes.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pages import blocks, text_of
from tests.programs import EXAMPLES
from wsthreads.testing import play

pytestmark = pytest.mark.usefixtures("apps_end")

# History


def with_history(tmp_path: Path, language: str) -> Path:
    path = tmp_path / ("chat.js" if language == "javascript" else "chat.py")
    path.write_text(blocks("docs/how-to/history", language)[0])
    return path


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_who_joins_gets_the_last_messages_and_who_comes_back_all_that_was_missed(tmp_path: Path, language: str) -> None:
    with play(with_history(tmp_path, language), history_messages=1000) as chat:
        ann, bob = chat.connect(), chat.connect()
        for number in range(60):
            ann.send(str(number))
        *last, joined = chat.connect().take_json()
        assert [message["text"] for message in last] == [str(number) for number in range(10, 60)]
        assert joined["complete"] is True
        since = bob.take_json()[-1]["position"]
        bob.lose()
        for number in range(60, 160):
            ann.send(str(number))
        first, *missed, joined = chat.connect(since=since).take_json()
        assert (first["text"], first["position"]) == ("59", since)
        assert [message["text"] for message in missed] == [str(number) for number in range(60, 160)]
        assert joined["complete"] is True
        *last, joined = chat.connect(since="of another server").take_json()
        assert [message["text"] for message in last] == [str(number) for number in range(110, 160)]
        assert joined["complete"] is False


HISTORY_PAGE = """
    class ReconnectingWebSocket { constructor(address) { Object.assign(globalThis, { socket: this, address }); } }
    const shown = [], show = (text) => shown.push(text);
    PAGE
    export function onMessage(session, told) {
      if (told) socket.onmessage({ data: told });
      else session.send(JSON.stringify({ address: address(), shown, seen: seen.size }));
    }
"""


def state_of_page(tmp_path: Path, told: list[dict[str, Any]]) -> Any:
    """What the page of the history has shown when it was told this: the page runs as a script of the server."""
    (tmp_path / "page.js").write_text(HISTORY_PAGE.replace("PAGE", blocks("docs/how-to/history", "javascript")[1]))
    with play(tmp_path / "page.js", max_messages_per_s=0) as page:
        client = page.connect()
        for message in told:
            client.send(json.dumps(message))
        client.send("")
        return client.take_json()[0]


def test_the_page_of_the_history_shows_each_message_once_and_goes_on_from_the_last_one(tmp_path: Path) -> None:
    message = {"type": "message", "id": "b", "text": "B", "position": "p1"}
    told = [
        {"type": "joined", "complete": True, "position": "p0"},
        {"type": "message", "id": "a", "text": "A", "position": "p0"},
        *(message, message),
        {"type": "joined", "complete": False, "position": "p2 +"},
    ]
    assert state_of_page(tmp_path, [])["address"] == "/ws/chat?"
    state = state_of_page(tmp_path, told)
    assert state["address"] == "/ws/chat?since=p2+%2B"
    assert state["shown"] == ["A", "B", "Some messages may be missing."]


def test_the_page_of_the_history_keeps_its_position_when_other_messages_have_none(tmp_path: Path) -> None:
    message = {"type": "message", "id": "a", "text": "A", "position": "p1"}
    told = [message, {"joined": [], "left": [], "changed": []}, {"type": "typing", "user": "ann"}]
    assert state_of_page(tmp_path, told)["address"] == "/ws/chat?since=p1"


def test_the_page_of_the_history_remembers_a_bounded_number_of_messages(tmp_path: Path) -> None:
    told = [{"type": "message", "id": str(number), "text": "A", "position": "p1"} for number in range(1010)]
    state = state_of_page(tmp_path, [*told, told[-1]])
    assert (state["seen"], len(state["shown"])) == (1000, 1010)


def test_a_view_lists_the_last_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with_history(tmp_path, "javascript")
    names: dict[str, Any] = {}
    exec(blocks("docs/how-to/history", "python")[1], names)
    with play(names["sockets"]) as chat:
        ann = chat.connect()
        for number in range(30):
            ann.send(str(number))
        last = [json.loads(message)["text"] for message in names["last_messages"]()]
    assert last == [str(number) for number in range(10, 30)]


# Rooms with state


def test_the_poll_in_python_counts_each_voter_once(tmp_path: Path) -> None:
    (tmp_path / "poll.py").write_text(blocks("docs/how-to/room-state", "python")[0])
    with play(tmp_path / "poll.py") as poll:
        ann, bob = poll.connect(user="ann"), poll.connect(user="bob")
        ann.send("Soup")
        bob.send("Soup")
        bob.send("Pizza")
        ann.send("nothing")
        first, *_, last = ann.take_json()
        assert first == {"type": "poll", "changes": 0, "counts": {"Soup": 0, "Salad": 0, "Pizza": 0}}
        assert last == {"type": "poll", "changes": 3, "counts": {"Soup": 1, "Salad": 0, "Pizza": 1}}


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_table_is_full_with_four(tmp_path: Path, language: str) -> None:
    path = tmp_path / ("table.js" if language == "javascript" else "table.py")
    path.write_text(blocks("docs/how-to/room-state", language)[-1])
    with play(path) as table:
        *seated, late = [table.connect(table="1") for _ in range(5)]
        assert late.closed == (4008, "this table is full")
        assert all(client.is_open for client in seated)
        assert table.connect(table="2").is_open
        seated[0].close()
        assert table.connect(table="1").is_open


def test_the_cursors_in_python_reach_the_others(tmp_path: Path) -> None:
    (tmp_path / "cursors.py").write_text(blocks("docs/how-to/cursors", "python")[0])
    with play(tmp_path / "cursors.py") as board:
        ann, bob = board.connect(user="ann"), board.connect(user="bob")
        assert [person["user"] for person in bob.take_json()[0]["people"]] == ["ann", "bob"]
        ann.take()
        ann.send('{"x": 0.5, "y": 1}')
        assert bob.take_json() == [{"type": "cursor", "user": "ann", "x": 0.5, "y": 1}]
        assert ann.take() == []


def race(tmp_path: Path) -> Path:
    path = tmp_path / "race.py"
    path.write_text(blocks("docs/how-to/game", "python")[0])
    return path


def test_the_test_of_the_race_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    race(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks("docs/how-to/game", "python")[1], names)
    names["test_a_player_moves"]()


def test_the_race_keeps_a_seat_and_lets_no_fifth_one_play(tmp_path: Path) -> None:
    with play(race(tmp_path)) as game:
        ann, *_, eve = [game.connect(user=name) for name in ("ann", "bob", "cid", "dan", "eve")]
        game.advance(1)
        assert eve.take_json()[-1].keys() == {"ann", "bob", "cid", "dan"}
        ann.lose()
        game.advance(9)
        assert "ann" in eve.take_json()[-1]
        game.advance(2)
        assert "ann" not in eve.take_json()[-1]
        eve.send("left")
        game.advance(1)
        assert eve.take_json()[-1]["eve"] < 0


def auction(tmp_path: Path, language: str) -> Path:
    path = tmp_path / ("auction.js" if language == "javascript" else "auction.py")
    (source,) = [block for block in blocks("docs/how-to/game", language) if "too low" in block and "play(" not in block]
    path.write_text(source)
    return path


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_the_test_of_the_countdown_passes(tmp_path: Path, language: str) -> None:
    (test,) = [block for block in blocks("docs/how-to/game", "python") if "test_the_highest_bid_wins" in block]
    path = auction(tmp_path, language)
    names: dict[str, Any] = {"play": play}
    exec(test.replace('"auction.js"', repr(str(path))), names)
    names["test_the_highest_bid_wins"]()


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_countdown_goes_on_while_nobody_is_there_and_ends_with_its_attribute(tmp_path: Path, language: str) -> None:
    with play(auction(tmp_path, language)) as game:
        room, ann = game.room("auction"), game.connect(user="ann")
        ann.send("10")
        state = room.get_attribute("auction")
        ann.close()
        game.advance(30)  # no ticks
        assert room.get_attribute("auction") == state
        ann = game.connect(user="ann")
        assert room.get_attribute("auction") == state
        game.advance(0.5)
        assert ann.take_json()[-1]["bid"] == 10
        ann.close()
        game.advance(61)
        assert room.get_attribute("auction") is None
        game.connect(user="ann")
        assert room.get_attribute("auction")["bid"] == 0


def test_a_test_can_replace_the_clock_of_a_countdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auction(tmp_path, "python")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("auction")
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))
    with play(module) as game:
        ann = game.connect(user="ann")
        for seconds, left in (0, 30), (10.5, 20), (29.5, 0):
            now += seconds
            game.advance(0.5)
            assert ann.take_json()[-1]["left"] == left
    del sys.modules["auction"]


def test_the_parts_of_examples_that_pages_show_are_whole(tmp_path: Path) -> None:
    """The lines and marks of ``literalinclude`` are those of the file."""
    for page, name in ("room-state", "poll.js"), ("cursors", "cursors.js"), ("game", "game.js"):
        text = (EXAMPLES / name).read_text()
        includes = re.findall(
            rf"^\.\. literalinclude:: \.\./\.\./examples/{name}\n((?:   :.*\n)+)", text_of(f"docs/how-to/{page}"), re.M
        )
        assert includes
        for options in includes:
            for line in re.findall(r":lines: (\d+)-", options):
                before, after = text.splitlines()[int(line) - 2 : int(line)]
                assert (before, after[:5]) == ("", "const"), page
            for mark in re.findall(r":(?:start-at|end-before): (.*)", options):
                assert text.count(mark) == 1, mark
