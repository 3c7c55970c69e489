"""docs/how-to/documents.rst: several people write in a document of Yjs, over several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.npm import node_modules
from tests.pages import blocks
from tests.programs import ServerProgram, connect, run_server, wait_until
from tests.redis_server import RedisServer
from wsthreads.testing import Play, play

#: The pages of all writers: each session of this script has a document, as a page with y-websocket has one. It is told
#: "insert PLACE TEXT", "text", or what it has received.
PAGES = """
import * as Y from "yjs";
import { readSyncMessage, writeSyncStep1, writeUpdate } from "y-protocols/sync";
import { createDecoder, readVarUint } from "lib0/decoding";
import { createEncoder, length, toUint8Array, writeVarUint } from "lib0/encoding";

const documents = new Map();

function send(session, write) {
  const encoder = createEncoder();
  writeVarUint(encoder, 0);
  write(encoder);
  if (length(encoder) > 1) session.send(toUint8Array(encoder));
}

export function onOpen(session) {
  const document = new Y.Doc();
  documents.set(session, document);
  document.on("update", (update, origin) => {
    if (origin !== "server") send(session, (encoder) => writeUpdate(encoder, update));
  });
  send(session, (encoder) => writeSyncStep1(encoder, document));
}

export function onMessage(session, message) {
  const document = documents.get(session);
  const text = document.getText("text");
  if (message === "text") {
    session.send(text.toString());
  } else if (typeof message === "string") {
    const [, place, words] = message.split(" ");
    text.insert(Number(place), words);
  } else {
    const decoder = createDecoder(new Uint8Array(message));
    readVarUint(decoder);
    send(session, (encoder) => readSyncMessage(decoder, encoder, document, "server"));
  }
}
"""


class Writer:
    """A page with a document, and its connection to a server."""

    def __init__(self, page: Any, connection: Any) -> None:
        self._page, self._connection = page, connection

    def insert(self, place: int, words: str) -> None:
        self._page.send(f"insert {place} {words}")

    def text(self) -> str:
        """The text as it is now, after whatever has come from the server."""
        while True:
            self._send(self._page.take())
            try:
                self._page.send(self._connection.recv(timeout=0.02))
            except TimeoutError:
                break
        self._page.send("text")
        *written, text = self._page.take()
        self._send(written)
        return str(text)

    def _send(self, messages: list[Any]) -> None:
        for message in messages:
            self._connection.send(message)


@pytest.fixture
def redis() -> Iterator[str]:
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def serve(tmp_path: Path, redis: str) -> Callable[[], Any]:
    """Starts a process that serves the page's script."""
    (tmp_path / "node_modules").symlink_to(node_modules())
    (tmp_path / "documents.js").write_text(blocks("docs/how-to/documents", "javascript")[0])
    (tmp_path / "_documents.py").write_text(blocks("docs/how-to/documents", "python")[0])
    options = ("--path", "/ws/documents/<name>", "--redis", redis, "--script-timeout-s", "10")
    return lambda: run_server("documents.js", *options, cwd=tmp_path)


@contextmanager
def pages(tmp_path: Path) -> Iterator[Callable[[ServerProgram], Writer]]:
    """Makes writers, each at a server."""
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "node_modules").symlink_to(node_modules())
    (folder / "page.js").write_text(PAGES)
    with ExitStack() as stack:
        chat: Play = stack.enter_context(play(folder / "page.js", script_timeout_s=10))
        yield lambda server: Writer(
            chat.connect(), stack.enter_context(connect(f"{server.ws_url}/ws/documents/minutes", max_size=None))
        )


def wait_for_one_text(writers: list[Writer], parts: list[str]) -> None:
    """Wait until all writers have the same text, and each of the parts is in it."""

    def agree() -> bool:
        texts = {writer.text() for writer in writers}
        return len(texts) == 1 and all(part in next(iter(texts)) for part in parts)

    wait_until(agree, f"one text with {len(parts)} parts")


def test_all_workers_have_the_whole_document_also_for_a_client_that_comes_later(
    tmp_path: Path, serve: Callable[[], Any]
) -> None:
    with serve() as first, serve() as second, pages(tmp_path) as write_at:
        ann, bob = write_at(first), write_at(second)
        parts = [f"({name}{number})" for number in range(10) for name in ("ann", "bob")]
        for number, part in enumerate(parts):
            (ann, bob)[number % 2].insert(0, part)
        wait_for_one_text([ann, bob], parts)
        wait_for_one_text([ann, bob, write_at(first), write_at(second)], parts)


def test_nothing_of_a_document_is_lost_when_its_owner_is_killed_and_after_a_restart(
    tmp_path: Path, serve: Callable[[], Any]
) -> None:
    with pages(tmp_path) as write_at:
        with serve() as first, serve() as second:
            ann, bob = write_at(first), write_at(second)
            ann.insert(0, "(before)")
            wait_for_one_text([ann, bob], ["(before)"])
            first.process.kill()  # the owner, since ann was there first; nothing may have been saved
            first.wait()
            bob.insert(0, "(after)")
            bob.text()
            wait_for_one_text([bob, write_at(second)], ["(before)", "(after)"])
            second.end()
        with serve() as third:
            wait_for_one_text([write_at(third)], ["(before)", "(after)"])
