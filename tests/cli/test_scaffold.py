"""What `wsthreads new` makes: it is served, tested, and works in a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.browsing import expect
from tests.programs import PROGRAM_S, ROOT, run_server, wsthreads
from wsthreads import UsageError
from wsthreads.cli.checks import Finding, check_target
from wsthreads.cli.scaffold import LANGUAGES, scaffold
from wsthreads.cli.targets import find_targets

JAVASCRIPT = ["chat.js", "jsconfig.json", "public/index.html", "test_chat.py", "wsthreads.d.ts"]


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_new_folder_has_one_handler_without_a_remark(tmp_path, language):
    files = scaffold(tmp_path / "my-chat", language)
    assert files[0].name == f"my-chat{LANGUAGES[language]}"
    (target,) = find_targets([tmp_path / "my-chat"])
    assert (target.path, target.file) == ("/ws/my-chat", files[0])
    functions = ("on_open", "on_message", "on_close") if language == "python" else ("onOpen", "onMessage", "onClose")
    assert check_target(target) == Finding(functions, ())
    assert sorted(files) == sorted(path for path in (tmp_path / "my-chat").rglob("*") if path.is_file())
    for path in files:
        assert "EXT" not in path.read_text()
        assert "/ws/chat" not in path.read_text()
        if path.suffix == ".json":
            json.loads(path.read_text())


def test_its_tests_pass_and_can_fail(tmp_path):
    for language in LANGUAGES:
        scaffold(tmp_path / f"{language}-chat", language)
    handler, *_ = scaffold(tmp_path / "wrong", "javascript")
    handler.write_text(handler.read_text().replace('type: "leave"', 'type: "left"'))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=PROGRAM_S,
    )
    assert "1 failed, 7 passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED wrong/test_wrong.py::test_the_others_are_told_who_left" in done.stdout


def test_nothing_is_written_over(tmp_path):
    scaffold(tmp_path / "chat", "javascript")
    assert names_in(tmp_path / "chat") == JAVASCRIPT
    (tmp_path / "chat" / "chat.js").write_text("mine")
    (tmp_path / "chat" / "jsconfig.json").unlink()
    with pytest.raises(UsageError, match=r"nothing was written, since these exist: .*chat\.js.*public/index\.html"):
        scaffold(tmp_path / "chat", "javascript")
    assert "jsconfig.json" not in names_in(tmp_path / "chat")
    assert (tmp_path / "chat" / "chat.js").read_text() == "mine"


@pytest.mark.parametrize("name", ["a b", "café", ".hidden", "1st", "x.y"])
def test_a_name_that_makes_no_handler_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="a name has letters"):
        scaffold(tmp_path / name, "python")
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Not a directory"):
        scaffold(tmp_path / "file" / "chat", "python")


def test_the_command_says_what_to_do_next_and_that_works(tmp_path, window):
    done = wsthreads("new", "chat", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    written, _, commands = done.stdout.partition("\nNext:\n")
    assert sorted(written.splitlines()) == sorted(f"chat/{name}" for name in JAVASCRIPT)
    assert re.findall("^  (.*?)(?: +#.*)?$", commands, re.MULTILINE) == [
        "cd chat",
        "wsthreads run chat.js --static public --serve-client --reload",
        "wsthreads check chat.js",
        "python -m pytest",
    ]
    arguments = ["chat.js", "--static", "public", "--serve-client", "--reload"]
    with run_server(*arguments, cwd=tmp_path / "chat") as server:
        ann, bob = window(f"{server.url}/?user=ann"), window(f"{server.url}/?user=bob")
        expect(ann.get_by_role("log")).to_contain_text("bob has come in, 2 here")
        bob.get_by_role("textbox", name="Message").fill("hello <b>ann</b>")
        bob.get_by_role("button", name="Send").click()
        expect(ann.get_by_role("log")).to_contain_text("bob: hello <b>ann</b>")
        message = bob.get_by_role("textbox", name="Message")
        for lines in (0, 60):  # with little to show and with much, one writes at the bottom of the window
            for n in range(lines):
                message.fill(f"line {n}")
                message.press("Enter")
            if lines:
                expect(bob.get_by_text(f"line {lines - 1}")).to_be_in_viewport()
            expect(message).to_be_in_viewport()
            box = message.bounding_box()
            assert 0 < bob.viewport_size["height"] - (box["y"] + box["height"]) < 40
        bob.close()
        expect(ann.get_by_role("log")).to_contain_text("bob has left, 1 here")


def test_the_page_says_that_its_session_goes_on(tmp_path, window):
    scaffold(tmp_path / "chat", "javascript")
    arguments = ["chat.js", "--static", "public", "--serve-client", "--resume-s", "60"]
    with run_server(*arguments, cwd=tmp_path / "chat") as server:
        ann = window(f"{server.url}/?user=ann")
        log = ann.get_by_role("log")
        expect(log).to_contain_text("ann has come in, 1 here")
        ann.evaluate("dispatchEvent(new Event('online'))")  # the client replaces its connection
        expect(log).to_contain_text("Connected again; nothing was missed.")
