"""What README.rst shows is what happens: its handlers run, its table of settings is `Config`, its names exist."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docutils.core
import pytest

import wsthreads
from tests.programs import ROOT, connect, receive, run_server
from wsthreads.app import WebSocketApp
from wsthreads.cli.targets import create_app
from wsthreads.config import Config
from wsthreads.javascript import check_script

README = (ROOT / "README.rst").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def test_it_is_valid_restructured_text() -> None:
    strict = {"halt_level": 2, "report_level": 2, "syntax_highlight": "none"}
    for name in ("README.rst", "CHANGES.rst"):
        docutils.core.publish_doctree((ROOT / name).read_text(), settings_overrides=strict)


@pytest.mark.parametrize(("name", "language"), [("ten_lines.js", "javascript"), ("ten_lines.py", "python")])
def test_the_handlers_of_ten_lines_chat(serve: Callable[..., Any], tmp_path: Path, name: str, language: str) -> None:
    (tmp_path / name).write_text(blocks(language)[0])
    url = serve(create_app(tmp_path / name)).ws_url + "/ws/ten_lines"
    with connect(url + "?user=alice") as alice:
        assert json.loads(receive(alice)) == {"type": "welcome", "visitor": 1}
        with connect(url) as bob:
            assert json.loads(receive(bob)) == {"type": "welcome", "visitor": 2}
            alice.send("hi")
            assert json.loads(receive(bob)) == {"from": "alice", "text": "hi"}
            alice.close()
            assert json.loads(receive(bob)) == {"type": "leave", "code": 1000}


def test_the_handshake_refuses_and_keeps_attributes(tmp_path: Path) -> None:
    script = tmp_path / "guard.js"
    script.write_text("const users = new Map();\n" + blocks("javascript")[1])
    assert check_script(script, Config()).hooks == {"on_handshake"}


def test_the_test_of_a_handler_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.js").write_text(blocks("javascript")[0])
    names: dict[str, Any] = {}
    exec(blocks("python")[1], names)
    names["test_the_others_hear_what_one_says"]()


def test_the_flask_application_broadcasts_from_a_view(serve: Callable[..., Any]) -> None:
    names: dict[str, Any] = {"__name__": "flask_example"}
    exec(blocks("python")[2], names)
    assert isinstance(names["websockets"], WebSocketApp)
    url = serve(names["websockets"]).ws_url + "/ws/chat"
    with connect(url) as client:
        client.ping().wait(10)  # on_open has run
        assert names["flask_app"].test_client().post("/announce/hello").status_code == 204
        assert receive(client) == "hello"


def test_the_flask_application_is_the_one_that_mypy_checks() -> None:
    def lines(text: str) -> set[str]:
        return {re.sub(r" +#", "  #", line) for line in text.splitlines() if "wsgi_app" in line}

    checked = (ROOT / "tests" / "javascript" / "types" / "embedded.py").read_text()
    (shown,) = [block for block in blocks("python") if "flask_app.wsgi_app" in block]
    assert lines(shown) == lines(checked)


def test_the_table_of_an_endpoint_s_methods_is_true() -> None:
    named = set(re.findall(r"^``endpoint\.(\w+)[(`]", README, re.MULTILINE))
    assert named == {"path", "room", "sessions", "session_count", "totals"}
    for name in named - {"path"}:
        assert callable(getattr(wsthreads.Endpoint, name))
        assert getattr(wsthreads.Endpoint, name).__doc__


@pytest.mark.parametrize("name", ["flask_login_app.py", "django_app.py"])
def test_an_example_that_closes_a_user_s_sessions_says_whose_it_reaches(name: str) -> None:
    """`sessions` has those of one process; README.rst says so, too."""
    text = (ROOT / "examples" / name).read_text()
    assert ".sessions()" in text
    assert "These are the sessions of this process." in text
    assert "**This ends sessions in one process.**" in README


def test_the_table_of_settings_is_the_configuration() -> None:
    section = README[README.index("Limits and defaults\n") :]
    named = re.findall(r"^``(\w+)`` +(\S+(?: MiB)?)  ", section, re.MULTILINE)
    assert [name for name, _ in named] == [field.name for field in dataclasses.fields(Config)]
    for name, shown in named:
        value = getattr(Config(), name)
        shown = re.sub(r"(?<=\d),(?=\d)", "", shown)
        meant = {"1 MiB": 2**20, "none": type(value)(), "yes": True, "no": False, "auto": None}.get(shown, shown)
        if value is not None:
            meant = float(meant) if isinstance(value, float) else type(value)(meant)
        assert value == meant, name


def test_the_targets_of_make_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"``?make (\w+)", README)) | set(re.findall(r"\$ make (\w+)", README))
    assert {"run", "test", "stress"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_what_run_prints_is_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "chat.js").write_text(blocks("javascript")[0])
    shown = re.findall(r"^ +\$ wsthreads run chat.js\n((?: {4}.*\n)+)", README, re.MULTILINE)[0]
    with run_server("chat.js", cwd=tmp_path) as server:
        server.wait_for(r"ws://\S+ +chat.js: .*")
        printed = server.log.replace(server.url.rpartition(":")[2], "5000")
    for line in shown.splitlines():
        assert re.sub(" +", " ", line.strip()) in re.sub(" +", " ", printed)


def test_its_pictures_and_the_files_that_it_leads_to_are_there() -> None:
    pictures = re.findall(r"^\.\. image:: (\S+)", README, re.MULTILINE)
    links = re.findall(r"`[^`<]+<([^>:]+\.\w+)>`_", README)
    named = re.findall(r"``((?:examples|tests|wsthreads)/[\w./-]+\.\w+)``", README)
    assert len(pictures) >= 4
    for path in (*pictures, *links, *named):
        assert (ROOT / path).is_file(), path
    assert len(re.findall(r"^   :alt: \S", README, re.MULTILINE)) == len(pictures)
