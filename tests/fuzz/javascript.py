"""Programs of one call of the script API with any arguments, and the script that runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.javascript_fakes import FakeSession, LogLines, Script, running, script_log

#: Answers each message, which is a program, by the witness: what sort of value came out, or which error.
SOURCE = """import { room as anyRoom, session as peer, sessions, user } from "wsthreads";

class Thrown extends Error {}
let witness;
export function onOpen(session) {
  witness ??= session;
}
export function onMessage(session, program) {
  let answer;
  try {
    const value = new Function("session", "Thrown", "anyRoom", "user", "peer", "sessions", program)(
      session, Thrown, anyRoom, user, peer, sessions);
    answer = { value: typeof value };
  } catch (error) {
    answer = { error: error.constructor.name, message: error.message };
  }
  witness.send(JSON.stringify(answer));
}
"""

VALUES = [
    "undefined", "null", "true", "false", "0", "-0", "1", "-1", "0.5", "NaN", "Infinity", "1000", "1005", "4999",
    "2**31", "-(2**31)", "2**53", "1e21", "1e308", "10n", "-(2n ** 70n)", "Symbol()", "Symbol.iterator",
    "''", "'a'", "'room'", "'__proto__'", "'\\0'", "'€'", "'😀'", "'\\ud800'", "'a\\udc00'", "'x'.repeat(124)",
    "'x'.repeat(256)", "'x'.repeat(257)", "'😀'.repeat(256)", "'é'.repeat(70000)", "'x'.repeat(2 ** 17)",
    "'😀'.repeat(257)", "'%s %d %j %O %%'", "new String('s')", "new Number(1000)", "Object(10n)", "Object(Symbol())",
    "[]", "[1, [2]]", "[,]", "new Array(300)", "({})", "({ length: 3 })", "Object.create(null)",
    "() => 1", "class A {}", "async () => 1", "function* () {}", "new Date(0)", "new Date(NaN)", "/x/g",
    "new Error('e')", "new Error('e', { cause: 10n })", "new Map([[1, 2]])", "new Set([1])", "new WeakMap()",
    "Promise.resolve(1)", "globalThis", "session", "session.room('room')", "console", "Thrown", "eval",
    "(() => { const a = {}; a.a = a; return a; })()",
    "(() => { let a = []; for (let n = 0; n < 2000; n++) a = [a]; return a; })()",
    "({ get a() { throw new Thrown('get'); }, toString() { throw new Thrown('text'); } })",
    "({ valueOf() { throw new Thrown('value'); }, toJSON() { throw new Thrown('json'); } })",
    "({ toString() { return {}; }, valueOf() { return {}; } })", "({ toJSON() { return 10n; } })",
    "({ [Symbol.toPrimitive]() { throw new Thrown('primitive'); } })", "({ constructor: { name: 5 } })",
    "({ constructor: { get name() { throw new Thrown('name'); } } })", "({ constructor: { name: Symbol() } })",
    "({ constructor: { name: { toString() { throw new Thrown('kind'); } } } })",
    "new Proxy({}, { get() { throw new Thrown('proxy'); }, getPrototypeOf() { throw new Thrown('prototype'); } })",
    "new Proxy({}, { ownKeys() { throw new Thrown('keys'); } })", "new Proxy([], {})", "new Proxy(() => 1, {})",
    "new Proxy(new Uint8Array(4), {})", "(() => { const p = Proxy.revocable({}, {}); p.revoke(); return p.proxy; })()",
    "new ArrayBuffer(0)", "new ArrayBuffer(9)", "new ArrayBuffer(8, { maxByteLength: 16 })", "new SharedArrayBuffer(4)",
    "new Uint8Array(5)", "new Uint8Array(9).subarray(3, 7)", "new Float64Array([NaN])", "new BigInt64Array(2)",
    "new DataView(new ArrayBuffer(8), 3)", "new Uint8Array(2 ** 12)", "new Uint8Array(new SharedArrayBuffer(7))",
    "new Uint8Array(new ArrayBuffer(8, { maxByteLength: 16 }))",
    "(() => { const b = new ArrayBuffer(8); b.transfer(); return b; })()",
    "(() => { const b = new ArrayBuffer(8), v = new Uint8Array(b, 2); b.transfer(); return v; })()",
    "(() => { const b = new ArrayBuffer(8), v = new DataView(b, 2); b.transfer(); return v; })()",
    "(() => { const b = new ArrayBuffer(8, { maxByteLength: 16 }); b.resize(0); return b; })()",
    "(() => { const b = new ArrayBuffer(8, { maxByteLength: 16 }), v = new Uint8Array(b); b.resize(16); return v; })()",
    "(() => { const b = new ArrayBuffer(8, { maxByteLength: 8 }), v = new Uint8Array(b, 4); b.resize(2); return v;"
    " })()",
    "(() => { const b = new ArrayBuffer(8, { maxByteLength: 8 }), v = new DataView(b, 4); b.resize(2); return v; })()",
    "(() => { const v = new Uint8Array(4); Object.defineProperty(v, 'buffer', { value: 5 }); return v; })()",
    "(() => { const v = new Uint8Array(4); Object.defineProperty(v, 'byteLength', { value: -1 }); return v; })()",
    "(() => { const v = new Uint8Array(4); Object.defineProperty(v, 'byteOffset', { get() { throw new Thrown(); } });"
    " return v; })()",
    "new (class extends Uint8Array { static get [Symbol.species]() { throw new Thrown('species'); } })(4)",
    "new (class extends ArrayBuffer { static get [Symbol.species]() { throw new Thrown('species'); } })(4)",
]  # fmt: skip

#: Each takes any arguments. What starts anything for later ends it as well, so that each program stands for itself.
CALLS = [
    "session.send(@)", "session.close(@)", "session.isOpen(@)", "session.rooms(@)", "session.room(@).join(@)",
    "session.getParameter(@)", "session.getHeader(@)", "session.getRequestPath(@)", "session.getRemoteAddr(@)",
    "session.getPathParameter(@)", "session.setExpiry(@)",
    "session.setAttribute(@)", "session.getAttribute(@)", "session.getAttributes(@)",
    "session.setAttribute(@); session.getAttributes(); return session.getAttribute(@)",
    "const room = session.room('room'); room.join(@); room.broadcast(@); room.leave(@)",
    "const room = session.room('other'); room.join(); room.broadcastExcept(@); return room.members(@)",
    "const room = session.room(@); room.join(); room.broadcast(room.getName()); session.rooms(); return room.members()",
    "session.room(@).broadcast(@)", "session.room(@).broadcastExcept(@)", "session.room(@).leave()",
    "const { send } = session; send(@)", "session.send.call(@)", "session.isOpen.call(@)", "session.rooms.apply(@)",
    "session.room('room').join.call(@)", "session.getParameter.call(@)", "session.setAttribute.call(@)",
    "session.send.call({ id: [@][0] }, 'a')", "session.close.call({ id: [@][0] })",
    "session.room.call({ id: [@][0] }, 'a').members()",
    "console.log(@)", "console.error(@)", "console.debug('%s %d %i %f %j %o %O %%', @)",
    "session.room('room').join({ presence: [@][0] })", "session.room('room').setPresence(@)",
    "session.room(@).presence()",
    "session.room('room').close(@)", "anyRoom(@).broadcast(@)", "anyRoom('room').members(@)",
    "anyRoom('room').presence(@)",
    "anyRoom('room').close(@)", "user(@).send(@)", "user('ann').send(@)", "user('ann').close(@)", "user(@).isOnline()",
    "user('ann').close(1000, '', { banS: [@][0] })", "user('ann').sessions(@)", "peer(@).send(@)", "peer('id').send(@)",
    "peer('id').close(@)", "peer(session.id).isOpen(@)", "sessions(@)",
    "user('ann').send.call(@)", "return session.user",
    "clearTimeout(setTimeout(@))", "clearInterval(setInterval(@))", "clearTimeout(@)", "queueMicrotask(@)",
    "session.close(); session.send(@)", "session.close(); session.room('room').join(@)", "session.close(1000, @)",
]  # fmt: skip

MAX_ARGUMENTS = 3

#: Errors of the API's, those of the engine for what is not there, and those that the values throw by themselves.
ERRORS = {"TypeError", "RangeError", "Thrown"}


def program(choose: Callable[[int], int]) -> str:
    """A program made of choices: ``choose(n)`` gives a number from 0 to n - 1."""
    parts = CALLS[choose(len(CALLS))].split("@")
    text = parts[0]
    for part in parts[1:]:
        values = [VALUES[choose(len(VALUES))] for _ in range(choose(MAX_ARGUMENTS + 1))]
        text += ", ".join(values) + part
    return text


class Host:
    """A script that runs programs, each in a session of its own."""

    def __init__(self, script: Script, log: LogLines) -> None:
        self._script, self._log = script, log
        self._witness = script.open()

    def run(self, code: str) -> dict[str, str]:
        """What came of a program. Raises AssertionError if that is nothing that its author could make sense of.

        The witness has its answer from the same interpreter as ever: one that was lost would have closed it.
        """
        session = self._script.open(FakeSession("user=alice"))
        self._script.message(session, code)
        answer: dict[str, str] = json.loads(self._witness.wait_for_messages(1)[0])
        self._script.close(session)
        self._witness.sent.clear()
        self._log.records.clear()
        assert answer.get("error", "TypeError") in ERRORS, (code, answer)
        assert "failed in Python" not in answer.get("message", ""), (code, answer)
        return answer


@contextmanager
def host(folder: Path) -> Iterator[Host]:
    with script_log() as log, running(folder, SOURCE) as script:
        yield Host(script, log)
