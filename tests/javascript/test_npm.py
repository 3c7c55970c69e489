"""Packages of npm work in a script, unchanged."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_fakes import running
from tests.npm import node_modules
from wsthreads.config import Config
from wsthreads.errors import ScriptError
from wsthreads.javascript import check_script
from wsthreads.testing import play


@pytest.fixture(scope="module")
def packages() -> Path:
    return node_modules()


@pytest.fixture
def folder(tmp_path: Path, packages: Path) -> Path:
    """A folder with the packages beside a script, as npm makes it."""
    (tmp_path / "node_modules").symlink_to(packages)
    return tmp_path


@pytest.fixture
def evaluate(folder: Path) -> Callable[[str, str], Any]:
    """The value of the body of an async function, behind some imports."""

    def value_of(imports: str, body: str) -> Any:
        source = f"""{imports}
        async function value() {{ {body} }}
        export async function onMessage(session) {{ session.send(JSON.stringify({{ value: await value() }})); }}"""
        with running(folder, source, script_timeout_s=30) as script:
            answer = json.loads(script.answer(script.open()))
            return answer.get("value")

    return value_of


@pytest.mark.parametrize(
    ("imports", "body", "expected"),
    [
        ('import { nanoid, customAlphabet } from "nanoid";',
         """const ids = new Set(Array.from({ length: 100 }, () => nanoid()));
         return [nanoid().length, ids.size, customAlphabet("ab", 9)().length]""",
         [21, 100, 9]),
        ('import { nanoid } from "nanoid/non-secure";', "return nanoid(5).length", 5),
        ('import { v4, v5, v7, validate, version } from "uuid";',
         'return [version(v4()), version(v7()), validate(v4()), v5("x", "6ba7b810-9dad-11d1-80b4-00c04fd430c8")]',
         [4, 7, True, str(uuid.uuid5(uuid.NAMESPACE_DNS, "x"))]),
        ('import { z } from "zod";',
         """const message = z.object({ type: z.enum(["join", "say"]), text: z.string().max(5).optional() });
         return [message.parse({ type: "say", text: "hi" }), message.safeParse({ type: "no" }).success,
           message.safeParse({ type: "say", text: "too long" }).error.issues[0].path]""",
         [{"type": "say", "text": "hi"}, False, ["text"]]),
        ('import * as v from "valibot";',
         """const schema = v.object({ mail: v.pipe(v.string(), v.email()), age: v.number() });
         return [v.parse(schema, { mail: "a@b.cd", age: 5 }), v.safeParse(schema, { mail: "x",
           age: 5 }).issues[0].message]""",
         [{"mail": "a@b.cd", "age": 5}, 'Invalid email: Received "x"']),
        ('import { addDays, format, formatDistance } from "date-fns"; import { de } from "date-fns/locale";',
         """const day = new Date(2026, 10, 29, 12);
         return [format(addDays(day, 3), "yyyy-MM-dd EEEE"), format(day, "EEEE", { locale: de }),
           formatDistance(day, addDays(day, 2))]""",
         ["2026-12-02 Wednesday", "Sonntag", "2 days"]),
        ('import { chunk, groupBy, isEqual } from "lodash-es"; import merge from "lodash-es/merge.js";',
         """return [chunk([1, 2, 3], 2), groupBy(["a", "bb", "c"], "length"), isEqual(new Map([[1, { a: 1 }]]),
           new Map([[1, { a: 1 }]])),
           merge({ a: { b: 1 } }, { a: { c: 2 } })]""",
         [[[1, 2], [3]], {"1": ["a", "c"], "2": ["bb"]}, True, {"a": {"b": 1, "c": 2}}]),
        ('import { enableMapSet, produce } from "immer";',
         """enableMapSet();
         const before = { list: [1], map: new Map([["k", { n: 1 }]]) };
         const after = produce(before, (draft) => { draft.list.push(2); draft.map.get("k").n++; });
         return [before.list, after.list, before.map.get("k").n, after.map.get("k").n, Object.isFrozen(after)]""",
         [[1], [1, 2], 1, 2, True]),
        ('import superjson from "superjson";',
         """const back = superjson.parse(superjson.stringify({ d: new Date(5), m: new Map([[1, new Set([2])]]),
           n: 10n, u: undefined }));
         return [back.d.getTime(), [...back.m.get(1)], String(back.n), "u" in back]""",
         [5, [2], "10", True]),
        ('import { pack, unpack, Packr } from "msgpackr";',
         """const packed = pack({ text: "ü😀", list: [1.5, -3, null], bytes: new Uint8Array([1, 2]),
           date: new Date(5) });
         const { text, list, bytes, date } = unpack(packed);
         const records = new Packr({ structuredClone: true });
         return [text, list, [...bytes], date.getTime(), records.unpack(records.pack(new Set([1]))).has(1)]""",
         ["ü😀", [1.5, -3, None], [1, 2], 5, True]),
        ('import { sign, verify } from "hono/jwt";',
         'return verify(await sign({ sub: "ann" }, "secret", "HS256"), "secret", "HS256")', {"sub": "ann"}),
    ],
    ids=lambda value: value.split('"')[1] if isinstance(value, str) and value.startswith("import") else "",
)  # fmt: skip
def test_a_package_works_unchanged(evaluate: Callable[[str, str], Any], imports: str, body: str, expected: Any) -> None:
    assert evaluate(imports, body) == expected


def test_jose_makes_and_verifies_tokens_and_refuses_forged_ones(evaluate: Callable[[str, str], Any]) -> None:
    body = """const secret = new TextEncoder().encode("0123456789abcdef0123456789abcdef");
      const sign = (expires) => new SignJWT({ user: "ann" }).setProtectedHeader({ alg: "HS256" }).setIssuedAt()
        .setExpirationTime(expires).sign(secret);
      const verified = async (token, key = secret) => {
        try { return (await jwtVerify(token, key, { algorithms: ["HS256"] })).payload.user; } catch (error) {
          return error.code; }
      };
      const good = await sign("1h");
      const [header, payload, signature] = good.split(".");
      const forged = btoa(JSON.stringify({ user: "root" })).replace(/=/g, "");
      const none = btoa(JSON.stringify({ alg: "none" })).replace(/=/g, "");
      return [await verified(good), await verified(`${header}.${forged}.${signature}`),
        await verified(`${none}.${payload}.`),
        await verified(good, new TextEncoder().encode("another secret of enough bytes..")),
          await verified(await sign(1)),
        await verified("nonsense")];"""
    failed = "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"
    assert evaluate('import { SignJWT, jwtVerify } from "jose";', body) == [
        "ann", failed, "ERR_JOSE_ALG_NOT_ALLOWED", failed, "ERR_JWT_EXPIRED", "ERR_JWS_INVALID",
    ]  # fmt: skip


#: A document of Yjs in each room, which all members share. The protocol is that of y-websocket.
SHARED = """
import * as Y from "yjs";
import { readSyncMessage, writeSyncStep1, writeUpdate } from "y-protocols/sync";
import { createDecoder, readVarUint } from "lib0/decoding";
import { createEncoder, length, toUint8Array, writeVarUint } from "lib0/encoding";

const SYNC = 0;
const documents = new Map();
const message = (write) => {
  const encoder = createEncoder();
  writeVarUint(encoder, SYNC);
  write(encoder);
  return encoder;
};

export function onOpen(session) {
  const room = session.room(session.getParameter("room"));
  room.join();
  if (!documents.has(room.getName())) {
    documents.set(room.getName(), new Y.Doc());
  }
  session.send(toUint8Array(message((encoder) => writeSyncStep1(encoder, documents.get(room.getName())))));
}

export function onMessage(session, bytes) {
  const room = session.room(session.getParameter("room"));
  const document = documents.get(room.getName());
  const decoder = createDecoder(new Uint8Array(bytes));
  readVarUint(decoder);
  const share = (update) => room.broadcastExcept(toUint8Array(message((encoder) => writeUpdate(encoder, update))));
  document.on("update", share);
  const answer = message((encoder) => readSyncMessage(decoder, encoder, document, session));
  document.off("update", share);
  if (length(answer) > 1) {
    session.send(toUint8Array(answer));
  }
}
"""

#: A client of it, which is a script, too: it is told "insert PLACE TEXT", "text", or what it has received.
CLIENT = """
import * as Y from "yjs";
import { readSyncMessage, writeUpdate } from "y-protocols/sync";
import { createDecoder, readVarUint } from "lib0/decoding";
import { createEncoder, length, toUint8Array, writeVarUint } from "lib0/encoding";

const document = new Y.Doc();
const text = document.getText("text");

export function onMessage(session, message) {
  const encoder = createEncoder();
  writeVarUint(encoder, 0);
  if (typeof message !== "string") {
    const decoder = createDecoder(new Uint8Array(message));
    readVarUint(decoder);
    readSyncMessage(decoder, encoder, document, "server");
  } else if (message === "text") {
    session.send(text.toString());
  } else {
    const [, place, words] = message.split(" ");
    document.once("update", (update) => writeUpdate(encoder, update));
    text.insert(Number(place), words);
  }
  if (length(encoder) > 1) {
    session.send(toUint8Array(encoder));
  }
}
"""


def test_two_clients_share_a_document_of_yjs_through_a_room(folder: Path) -> None:
    (folder / "shared.js").write_text(SHARED)
    (folder / "client.js").write_text(CLIENT)
    with (
        play(folder / "shared.js", script_timeout_s=30) as server,
        play(folder / "client.js", script_timeout_s=30) as ann_s,
        play(folder / "client.js", script_timeout_s=30) as bob_s,
    ):
        pairs = [(server.connect("/ws/shared?room=a"), yjs.connect()) for yjs in (ann_s, bob_s)]

        def settle() -> None:
            """Carry messages between the documents of the clients and the server, until there are none."""
            while sum(_carry(connection, document) for connection, document in pairs):
                pass

        def write(client: int, place: int, words: str) -> None:
            pairs[client][1].send(f"insert {place} {words}")

        def texts() -> list[str]:
            found = []
            for _, document in pairs:
                document.send("text")
                found += document.take()
            return found

        settle()
        write(0, 0, "world")
        settle()
        assert texts() == ["world", "world"]
        write(0, 5, "!")  # at the same time
        write(1, 0, "hello_")
        settle()
        assert texts() == ["hello_world!"] * 2


def _carry(connection: Any, document: Any) -> bool:
    """Hand what the server has sent to a client's document, and the document's messages to the server."""
    received, written = connection.take(), document.take()
    for message in received:
        document.send(message)
    for message in written:
        connection.send(message)
    return bool(received or written)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('import { serveStatic } from "hono/deno";',
         "node_modules/hono/dist/adapter/deno/serve-static.js:2:22: import of 'node:path': "
         "the package hono needs Node's module path, which scripts do not have"),
        ('import { nothing } from "nanoid";', "there is no export 'nothing' in node_modules/nanoid/index.browser.js"),
        ('import x from "zod/nothing";',
         "the package.json of zod exports no ./nothing for ES modules; it exports ./package.json, ./mini"),
    ],
)  # fmt: skip
def test_what_does_not_work_says_why(folder: Path, source: str, message: str) -> None:
    (folder / "script.js").write_text(f"{source}\nexport function onOpen() {{}}")
    with pytest.raises(ScriptError) as error:
        check_script(folder / "script.js", Config())
    assert message in str(error.value)
