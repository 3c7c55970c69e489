"""What README.rst shows is what happens: its handlers run, its commands print what it shows, its pictures exist."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docutils.core
import pytest

from tests.pages import blocks, text_of
from tests.programs import ROOT, connect, receive, run_server
from wsthreads.cli.targets import create_app

README = text_of("README")


def test_it_is_valid_restructured_text() -> None:
    strict = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
    for name in ("README", "CHANGES"):
        docutils.core.publish_doctree(text_of(name), settings_overrides=strict)


def test_it_is_read_in_two_minutes() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize(("name", "language"), [("ten_lines.js", "javascript"), ("ten_lines.py", "python")])
def test_the_handlers_of_ten_lines_chat(serve: Callable[..., Any], tmp_path: Path, name: str, language: str) -> None:
    (source,) = blocks("README", language)
    (tmp_path / name).write_text(source)
    url = serve(create_app(tmp_path / name)).ws_url + "/ws/ten_lines"
    with connect(url + "?user=alice") as alice:
        assert json.loads(receive(alice)) == {"type": "welcome", "visitor": 1}
        with connect(url) as bob:
            assert json.loads(receive(bob)) == {"type": "welcome", "visitor": 2}
            alice.send("hi")
            assert json.loads(receive(bob)) == {"from": "alice", "text": "hi"}
            alice.close()
            assert json.loads(receive(bob)) == {"type": "leave", "code": 1000}


def test_what_run_prints_is_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "chat.js").write_text(blocks("README", "javascript")[0])
    shown = re.findall(r"^ +\$ wsthreads run chat.js\n((?: {4}.*\n)+)", README, re.MULTILINE)[0]
    with run_server("chat.js", cwd=tmp_path) as server:
        server.wait_for(r"ws://\S+ +chat.js: .*")
        printed = server.log.replace(server.url.rpartition(":")[2], "5000")
    for line in shown.splitlines():
        assert re.sub(" +", " ", line.strip()) in re.sub(" +", " ", printed)


def test_the_pages_that_it_leads_to_are_there() -> None:
    named = re.findall(r"``((?:docs|CHANGES|LICENSE)[\w./-]*)``", README)
    assert len(named) >= 6
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_words_of_its_table_are_settings_commands_and_functions() -> None:
    """Each literal in it is in a page of the reference, or in a how-to, where a test runs it."""
    docs = "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.rst")))
    table = README[README.index("\nYou get ") : README.index("\nWith a Python handler, ")]
    literals = re.findall(r"``([^`]+)``", table)
    assert len(literals) > 8
    for literal in literals:
        assert literal in docs or all(word in docs for word in re.findall(r"[\w.-]{4,}", literal)), literal
