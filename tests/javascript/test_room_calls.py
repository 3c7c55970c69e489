"""The functions of rooms in a script, as `RoomCalls` runs them: batches, promises, deadlines, failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.javascript.test_hostile import BROKEN
from tests.javascript_fakes import SHORT_S, Script, running, script_log
from tests.programs import DEADLINE_S
from wsthreads.errors import HandlerError
from wsthreads.testing import play

TICKS = "export const tickRate = 20;\n"
#: What a script does is shown by its console.
ECHO = """
export function onRoomStart(room) { console.log(`start ${room.getName()} ${room.fencingNumber}`); }
export function onPost(room, value, from) { console.log(`post ${JSON.stringify([value, from])}`); }
export function onTick(room, dt) { console.log(`tick ${room.getName()} ${dt}`); }
export function onRoomEnd(room) { console.log(`end ${room.getName()}`); }
"""


class Call:
    """A call as the owner of rooms hands it over. `is_owned`: whether it may begin."""

    def __init__(self, kind: str, room: str = "r", *, fence: int = 7, is_owned: bool = True, **told: Any) -> None:
        self.kind = kind
        self.room = SimpleNamespace(name=room, fencing_number=fence)
        self.is_owned = is_owned
        self.dt: float = told.get("dt", 0.05)
        self.value: str = json.dumps(told.get("value"))
        self.sender: Any = told.get("sender")
        self.begun_count = 0
        self.outcomes: list[str | None] = []
        self._over = threading.Event()

    def check(self) -> bool:
        return self.is_owned

    def begun(self) -> None:
        self.begun_count += 1

    def put_off(self) -> None:
        assert self.begun_count == 0

    def done(self, failure: str | None = None) -> None:
        self.outcomes.append(failure)
        self._over.set()

    def outcome(self) -> str | None:
        """Waits for it."""
        assert self._over.wait(DEADLINE_S), f"{self.kind} in {self.room.name}"
        return self.outcomes[0]

    @property
    def is_over(self) -> bool:
        return self._over.is_set()


def hand_over(script: Script, *calls: Call) -> None:
    script.handler.call_rooms(calls)  # type: ignore[arg-type]


def outcomes(calls: Sequence[Call]) -> list[str | None]:
    return [call.outcome() for call in calls]


@pytest.fixture(params=["engine", "no engine"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "engine":
        return {}
    request.getfixturevalue("without_engine")
    return {"scripts_without_deadline": True}


def test_a_room_lives_in_the_order_of_its_calls(tmp_path: Path, settings: dict[str, Any]) -> None:
    ann = SimpleNamespace(id="a1", user="ann")
    nobody = SimpleNamespace(id="b2", user=None)
    with running(tmp_path, TICKS + ECHO, **settings) as script, script_log() as lines:
        calls = [
            Call("room_start", "ü 😀"),
            Call("post", value={"x": [1, None]}, sender=ann),
            Call("post", value="ü", sender=nobody),
            Call("post", value=None),
            Call("tick", "ü 😀", dt=0.0625),
            Call("room_end", "ü 😀"),
        ]
        hand_over(script, *calls)
        assert outcomes(calls) == [None] * 6
        assert lines.texts() == [
            "start ü 😀 7",
            'post [{"x":[1,null]},{"id":"a1","user":"ann"}]',
            'post ["ü",{"id":"b2","user":null}]',
            "post [null,null]",
            "tick ü 😀 0.0625",
            "end ü 😀",
        ]


def test_the_rate_and_the_functions_are_told(tmp_path: Path) -> None:
    with running(tmp_path, "export const tickRate = 12.5; export function onTick() {}") as script:
        assert script.handler.tick_rate == 12.5
        assert script.handler.hooks == {"on_tick"}


@pytest.mark.parametrize(
    ("exports", "about", "message"),
    [
        ("const tickRate = 0", "tickRate", "exports tickRate as 0; it must be a number of ticks a second from 1 to 60"),
        ("const tickRate = 61", "tickRate", "as 61; it must be a number of ticks a second from 1 to 60"),
        ("const tickRate = 'fast'", "tickRate", 'as "fast"; it must be a number'),
        ("const tickRate = NaN", "tickRate", "as NaN; it must be"),
        ("const tickRate = -Infinity", "tickRate", "as -Infinity; it must be"),
        ("const tickRate = 20n", "tickRate", "as 20n; it must be"),
        ("const tickRate = { valueOf: () => 20 }", "tickRate", "as {"),
        ("function tickRate() { return 20; }", "tickRate", "as [function tickRate]; it must be"),
        ("let tickRate", "tickRate", "as undefined; it must be"),
        ("const other = 1", "onTick", "exports onTick without tickRate, a number of ticks a second from 1 to 60"),
        ("const tick_rate = 20", "tick_rate", "it exports tick_rate, did you mean tickRate?"),
    ],
)
def test_a_wrong_tick_rate_is_refused(tmp_path: Path, exports: str, about: str, message: str) -> None:
    script = Script(tmp_path, f"export {exports};\nexport function onTick() {{}}")
    with pytest.raises(HandlerError) as caught:
        script.handler.start()
    assert message in str(caught.value)
    assert caught.value.about == about


def test_a_tick_rate_without_on_tick_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HandlerError, match="tickRate without onTick"):
        Script(tmp_path, "export const tickRate = 20; export function onPost() {}").handler.start()


def test_calls_without_a_function_are_done(tmp_path: Path) -> None:
    with running(tmp_path, "export function onOpen() {}") as script:
        calls = [Call(kind) for kind in ("room_start", "post", "tick", "room_end")]
        hand_over(script, *calls)
        assert outcomes(calls) == [None] * 4


def test_what_is_not_owned_any_more_is_not_run(tmp_path: Path) -> None:
    with running(tmp_path, TICKS + ECHO) as script, script_log() as lines:
        calls = [Call("tick", "a", is_owned=False), Call("tick", "b"), Call("tick", "c", is_owned=False)]
        hand_over(script, *calls)
        outcomes(calls)
        assert lines.texts() == ["tick b 0.05"]


def test_a_room_has_one_object_for_each_ownership(tmp_path: Path) -> None:
    source = """const seen = [];
    export function onTick(room) {
      seen.push(room);
      console.log(`${room.fencingNumber} ${room === seen[0]} ${seen.length} ${Object.isFrozen(room)}`);
    }"""
    with running(tmp_path, TICKS + source) as script, script_log() as lines:
        calls = [Call("tick", fence=7), Call("tick", fence=7), Call("tick", fence=8)]
        hand_over(script, *calls)
        outcomes(calls)
        assert lines.texts() == ["7 true 1 true", "7 true 2 true", "8 false 3 true"]


# Failures


def test_an_error_ends_its_call_only_and_names_the_room_and_the_line(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = """export function onTick(room) {
      if (room.getName() === "bad") throw new RangeError("as asked");
    }
    export const onPost = async (room, value) => { await null; throw value; };"""
    with running(tmp_path, TICKS + source, **settings) as script, script_log() as lines:
        calls = [Call("tick", "a"), Call("tick", "bad"), Call("tick", "b"), Call("post", "late", value="thrown")]
        hand_over(script, *calls)
        assert outcomes(calls) == [None, "failed", None, "failed"]
        assert "onTick failed in room 'bad': RangeError: as asked" in lines.texts()[0]
        assert "script.js:3" in lines.texts()[0]
        assert "onPost failed in room 'late': \"thrown\" was thrown" in lines.wait_for("late")
        assert script.count("handler_errors") == 2
        assert script.metrics.distributions()["on_tick"].count == 3


def test_a_generator_is_an_error_that_is_logged_once(tmp_path: Path) -> None:
    source = "export function onTick() { return (function* () {})(); }"
    with running(tmp_path, TICKS + source) as script, script_log() as lines:
        calls = [Call("tick", "a"), Call("tick", "b")]
        hand_over(script, *calls)
        assert outcomes(calls) == ["failed", "failed"]
        assert len(lines.texts()) == 1
        assert "onTick returned a generator, whose body never runs" in lines.texts()[0]
        assert script.count("handler_errors") == 2


def test_a_call_that_never_ends_is_stopped_and_the_others_run(tmp_path: Path) -> None:
    source = """export function onTick(room) {
      try {
        if (room.getName() === "bad") for (;;) {}
      } catch {} finally { console.log(`tick ${room.getName()}`); }
    }"""
    with running(tmp_path, TICKS + source, script_timeout_s=SHORT_S) as script, script_log() as lines:
        calls = [Call("tick", name) for name in ("a", "bad", "b", "c")]
        hand_over(script, *calls)
        assert outcomes(calls) == [None, "timeout", None, None]
        stopped = f"onTick in room 'bad' was stopped after {SHORT_S:g} s (script_timeout_s)"
        assert [text.splitlines()[0] for text in lines.texts()] == ["tick a", stopped, "tick b", "tick c"]
        assert "script.js:4" in lines.wait_for(stopped)
        assert script.count("script_timeouts") == 1
        assert all(len(call.outcomes) == 1 for call in calls)


def test_a_long_batch_delays_no_message_and_each_call_has_its_own_deadline(tmp_path: Path) -> None:
    """Together the ticks take longer than the deadline of a call."""
    source = """let ticks = 0;
    export function onTick() { ticks++; const until = Date.now() + 20; while (Date.now() < until); }
    export function onMessage(session) { session.send(`${ticks}`); }"""
    with running(tmp_path, TICKS + source, script_timeout_s=SHORT_S) as script:
        session = script.open()
        calls = [Call("tick", f"{number}") for number in range(int(SHORT_S / 0.02) + 10)]
        done = calls[0].done

        def done_while_others_wait(failure: str | None = None) -> None:
            script.message(session)
            done(failure)

        calls[0].done = done_while_others_wait  # type: ignore[method-assign]
        hand_over(script, *calls)
        assert int(session.wait_for_messages(1)[0]) < len(calls)
        assert outcomes(calls) == [None] * len(calls)
        assert [call.begun_count for call in calls] == [1] * len(calls)
        assert script.count("script_timeouts") == 0
        distribution = script.metrics.distributions()["on_tick"]
        assert distribution.count == len(calls)
        assert distribution.quantile(0.1) >= 0.01, "each is measured"


# Promises


def test_a_pending_call_delays_only_its_room(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = """const open = {};
    export function onPost(room, value) {
      console.log(`post ${value}`);
      if (value === "wait") return new Promise((resolve) => { open[room.getName()] = resolve; });
      if (value === "go") open.a();
    }"""
    with running(tmp_path, source, **settings) as script, script_log() as lines:
        waiting = [Call("post", "a", value="wait"), Call("post", "a", value=2), Call("post", "a", value=3)]
        others = [Call("post", "b", value="other"), Call("post", "c", value="another")]
        hand_over(script, waiting[0], others[0], waiting[1], others[1], waiting[2])
        assert outcomes(others) == [None, None]
        script.handler.settle(DEADLINE_S)
        assert not any(call.is_over for call in waiting)
        go = Call("post", "b", value="go")
        hand_over(script, go)
        assert outcomes([go, *waiting]) == [None] * 4
        assert [call.begun_count for call in waiting] == [1] * 3
        assert lines.texts() == [f"post {what}" for what in ("wait", "other", "another", "go", "2", "3")]
        assert script.metrics.distributions()["on_post"].count == 6


def test_a_promise_that_never_settles_is_given_up_and_its_room_goes_on(tmp_path: Path) -> None:
    source = """export function onPost(room, value) {
      console.log(`post ${value}`);
      return value === 1 ? new Promise(() => {}) : undefined;
    }"""
    with running(tmp_path, source, script_timeout_s=SHORT_S) as script, script_log() as lines:
        calls = [Call("post", value=1), Call("post", value=2)]
        hand_over(script, *calls)
        assert outcomes(calls) == ["timeout", None]
        later = Call("post", value=3)
        hand_over(script, later)
        assert later.outcome() is None
        assert lines.texts() == [
            "post 1",
            f"onPost in room 'r' returned a promise that has not settled in {2 * SHORT_S:g} s (script_wait_s)",
            "post 2",
            "post 3",
        ]


def test_a_promise_that_settles_too_late_changes_nothing(tmp_path: Path) -> None:
    source = """let goOn;
    export async function onPost(room, value) {
      if (value === 1) {
        await new Promise((resolve) => { goOn = resolve; });
        throw new Error("late");
      }
      if (value === 3) goOn();
      await null;
    }"""
    with running(tmp_path, source, script_timeout_s=SHORT_S) as script, script_log() as lines:
        calls = [Call("post", value=1), Call("post", value=2), Call("post", value=3)]
        hand_over(script, *calls)
        assert outcomes(calls) == ["timeout", None, None]
        assert "onPost failed in room 'r': Error: late" in lines.wait_for("Error: late")
        script.handler.settle(DEADLINE_S)
        assert [call.outcomes for call in calls] == [["timeout"], [None], [None]]


# The end


def test_calls_of_a_dead_isolate_are_told(tmp_path: Path) -> None:
    source = "export function onTick() { return new Promise(() => {}); } export function onPost() {}"
    with running(tmp_path, TICKS + source) as script:
        pending = [Call("tick"), Call("post", value=1)]
        hand_over(script, *pending)
        script.handler.settle(DEADLINE_S)
        script.handler.stop(0)
        assert outcomes(pending) == ["down", "down"]
        late = Call("tick")
        hand_over(script, late)
        assert late.outcome() == "down"
    unstarted = Call("tick")
    Script(tmp_path, TICKS + source).handler.call_rooms([unstarted])  # type: ignore[list-item]
    assert unstarted.outcome() == "down"


def test_an_isolate_that_must_end_stops_a_call(tmp_path: Path) -> None:
    source = 'export function onTick() { console.log("runs"); for (;;) {} }'
    with running(tmp_path, TICKS + source, script_timeout_s=60) as script, script_log() as lines:
        calls = [Call("tick", "a"), Call("tick", "b")]
        hand_over(script, *calls)
        lines.wait_for("runs")
        script.handler.stop(0)
        assert outcomes(calls) == ["down", "down"]
        assert "one of 2 calls for rooms was stopped, because the script is shut down" in lines.texts()[-1]


def test_a_full_heap_in_a_tick_ends_that_tick(tmp_path: Path) -> None:
    source = """export function onTick(room) {
      const kept = [];
      while (room.getName() === "bad") kept.push(new Array(1e5).fill({}));
    }"""
    with running(tmp_path, TICKS + source, script_timeout_s=DEADLINE_S) as script, script_log() as lines:
        calls = [Call("tick", name) for name in ("a", "bad", "b")]
        hand_over(script, *calls)
        assert outcomes(calls) == [None, "failed", None]
        assert "out of memory" in lines.wait_for("onTick failed in room 'bad'")


# Reload


def test_a_reload_goes_on_with_the_new_functions_and_rate(tmp_path: Path) -> None:
    with running(tmp_path, TICKS + ECHO) as script, script_log() as lines:
        first = [Call("room_start"), Call("tick")]
        hand_over(script, *first)
        outcomes(first)
        script.path.write_text(
            "export const tickRate = 5; export function onTick(room) { console.log(`new ${room.fencingNumber}`); }"
        )
        loaded: list[float | None] = []
        script.handler.on_loaded = lambda: loaded.append(script.handler.tick_rate)
        script.handler.reload()
        assert loaded == [5]
        assert script.handler.hooks == {"on_tick"}
        second = [Call("tick"), Call("post", value=1), Call("room_end")]
        hand_over(script, *second)
        assert outcomes(second) == [None] * 3
        assert lines.texts() == ["start r 7", "tick r 0.05", "new 7"]


def test_a_reload_that_fails_leaves_everything(tmp_path: Path) -> None:
    with running(tmp_path, TICKS + ECHO) as script, script_log() as lines:
        script.path.write_text("export const tickRate = 99; export function onTick() {}")
        with pytest.raises(HandlerError, match="tickRate as 99"):
            script.handler.reload()
        assert script.handler.tick_rate == 20
        tick = Call("tick")
        hand_over(script, tick)
        tick.outcome()
        assert lines.texts() == ["tick r 0.05"]


def test_a_pending_call_outlives_a_reload(tmp_path: Path) -> None:
    source = """export async function onPost(room, value) {
      await new Promise((resolve) => { globalThis.go = resolve; });
      console.log(`old ${value}`);
    }"""
    with running(tmp_path, source) as script, script_log() as lines:
        calls = [Call("post", value=1), Call("post", value=2)]
        hand_over(script, *calls)
        script.handler.settle(DEADLINE_S)
        script.path.write_text("globalThis.go(); export function onPost(room, value) { console.log(`new ${value}`); }")
        script.handler.reload()
        assert outcomes(calls) == [None, None]
        assert lines.texts() == ["old 1", "new 2"]


# Hostile scripts


def test_a_script_that_changes_built_ins_breaks_no_call(tmp_path: Path) -> None:
    source = """
    const never = () => { throw new Error("never"); };
    Array.prototype.push = Array.prototype.splice = Array.prototype[Symbol.iterator] = Array.prototype.forEach = never;
    Object.defineProperty(Object.prototype, "ticket", { set: never, get: never });
    JSON.parse = JSON.stringify = Map.prototype.get = Map.prototype.set = Reflect.apply = never;
    Promise.prototype.then = Promise.resolve = never;
    globalThis.Promise = globalThis.Map = never;
    export function onPost(room, value, from) { console.log(`${room.getName()} ${value.x[0]} ${from.user}`); }
    export function onTick(room, dt) { console.log(`tick ${dt}`); }
    """
    with running(tmp_path, TICKS + source) as script, script_log() as lines:
        calls = [Call("post", value={"x": [1]}, sender=SimpleNamespace(id="a", user="ann")), Call("tick")]
        hand_over(script, *calls)
        assert outcomes(calls) == [None, None]
        assert lines.texts() == ["r 1 ann", "tick 0.05"]


@pytest.mark.parametrize(
    "thenable", ["{ then() { throw new Error('no'); } }", "{ get then() { throw new Error('no'); } }"]
)
def test_a_thenable_that_throws_is_a_failure(tmp_path: Path, thenable: str) -> None:
    with running(tmp_path, f"export function onPost() {{ return {thenable}; }}") as script, script_log() as lines:
        calls = [Call("post", value=1), Call("post", value=2)]
        hand_over(script, *calls)
        assert outcomes(calls) == ["failed", "failed"]
        assert len(lines.texts()) == 2
        assert "onPost failed in room 'r': Error: no" in lines.texts()[0]


#: What must work however broken the standard library is. It uses nothing of that itself.
SURVIVES = """import { room as anyRoom } from "wsthreads";
export const tickRate = 20;
const B = Uint8Array;
export function onOpen(session) {
  const { joined, complete } = session.room("r").join({ history: 2, since: null, maxMembers: 9, presence: 1 });
  session.send("open " + joined + complete);
}
export function onRoomStart(room) { room.setAttribute("n", { list: [1] }); }
export function onTick(room, dt) { room.broadcast("tick " + dt, { latest: "k", keep: false }); }
export async function onPost(room, value, from) {
  await null;
  room.broadcast("post " + value.x[0] + (from === null) + (room.fencingNumber > 0) + room.isOwner());
}
export async function onMessage(session, message) {
  const room = session.room("r");
  if (message === "post") {
    await room.post({ x: [7] });
    await anyRoom("r").post({ x: [8] });
    try {
      await session.room("nobody's").post(1);
    } catch (error) {
      session.send(error.name + error.isUnknown);
    }
    return;
  }
  const { list } = room.updateAttribute("n", ({ list }) => ({ list: [list[0] + 1] }));
  room.broadcast(new B(3));
  room.broadcast("text");
  const last = room.history(5);
  session.send("" + list[0] + room.getAttribute("n").list[0] + room.getAttributes().n.list[0] + last.length +
    new B(last[2])[2] + last[3] + room.deleteAttribute("n") + (room.getAttribute("n") === null) +
    room.position().length);
}
"""


@pytest.mark.parametrize("broken", BROKEN)
def test_rooms_survive_a_broken_standard_library(tmp_path: Path, broken: str) -> None:
    script = tmp_path / "broken.js"
    script.write_text(f"{SURVIVES}\n{broken}")
    with play(script, history_messages=5) as chat:
        ann = chat.connect()
        assert ann.take() == ["open truetrue"]
        chat.advance(0.05)
        assert ann.take() == ["tick 0.05"]
        ann.send("post")
        assert ann.take() == ["post 7falsetruetrue", "post 8truetruetrue", "PostErrorfalse"]
        position = len(chat.room("r").position())
        ann.send("?")
        assert ann.take() == [b"\0\0\0", "text", f"22240texttruetrue{position}"]
