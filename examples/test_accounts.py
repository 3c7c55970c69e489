"""Tests of accounts.js and _accounts.py: ``python -m pytest examples``."""

import json
import runpy
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from wsthreads.testing import HandlerFailed, play


@pytest.fixture
def chat(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    with play(Path(__file__).with_name("accounts.js")) as chat:
        yield chat


def log_in(chat, name, password="a long password", how="register"):
    guest = chat.connect()
    guest.send(json.dumps({"type": how, "name": name, "password": password}))
    (answer,) = guest.take_json()
    guest.close()
    return answer


def texts(client):
    return [(message["user"], message["text"]) for message in client.take_json() if message["type"] == "message"]


def test_who_has_an_account_talks_and_sees_what_was_said_before(chat):
    ann = chat.connect(token=log_in(chat, "ann")["token"])
    ann.send(json.dumps({"type": "message", "text": "hello"}))
    ann.send(json.dumps({"type": "message", "text": "  "}))
    assert texts(ann) == [("ann", "hello")]
    bob = chat.connect(token=log_in(chat, "bob")["token"])
    assert texts(bob) == [("ann", "hello")]
    bob.send(json.dumps({"type": "message", "text": "x" * 3000}))
    assert texts(bob) == texts(ann) == [("bob", "x" * 2000)]


def test_half_of_a_surrogate_pair_is_replaced(chat):
    ann = chat.connect(token=log_in(chat, "ann")["token"])
    for text in ("x" * 1999 + "\N{GRINNING FACE}", "a\ud800b"):
        ann.send(json.dumps({"type": "message", "text": text}))
    assert texts(ann) == [("ann", "x" * 1999 + "\N{REPLACEMENT CHARACTER}"), ("ann", "a\N{REPLACEMENT CHARACTER}b")]
    wrong = log_in(chat, "ann\ud800", how="login"), log_in(chat, "ann", "\ud800", how="login")
    assert {each["text"] for each in wrong} == {"name or password is wrong"}


@pytest.mark.parametrize(
    "message", ["null", "{", "[]", "1e300", b"\xff", '{"type": {}}', '{"type": "login", "name": 1e300}', "[" * 5000]
)
def test_what_is_no_message_is_told_and_is_no_failure(chat, message):
    ann, guest = chat.connect(token=log_in(chat, "ann")["token"]), chat.connect()
    for client in ann, guest:
        client.send(message)
    told = {each["text"] for client in (ann, guest) for each in client.take_json()}
    assert told <= {"a message is JSON with a type: register, login, message or logout", "name or password is wrong"}
    assert len(told) == 1


def test_a_fresh_database_takes_calls_from_many_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    accounts = runpy.run_path(str(Path(__file__).with_name("_accounts.py")))
    with ThreadPoolExecutor(8) as pool:
        saved = [pool.submit(accounts["save"], "ann", str(number)) for number in range(24)]
    assert len({each.result()["id"] for each in saved}) == 24


def test_a_password_is_asked_for_and_a_name_is_taken_once(chat):
    assert log_in(chat, "ann")["user"] == "ann"
    assert log_in(chat, "ann") == {"type": "error", "text": "the name ann is taken"}
    wrong = {"type": "error", "text": "name or password is wrong"}
    assert log_in(chat, "ann", "another password", how="login") == wrong
    assert log_in(chat, "nobody", how="login") == log_in(chat, "ann' OR 1=1 --", how="login") == wrong
    assert chat.connect(token=log_in(chat, "ann", how="login")["token"]).is_open


@pytest.mark.parametrize("name", ["", "a b", "7up", "x" * 41, None, 7, ["ann"]])
def test_a_name_has_a_form(chat, name):
    assert log_in(chat, name)["text"].startswith("a name has 1 to 40 letters")


def test_a_logout_ends_the_user_on_all_devices(chat):
    token, other = log_in(chat, "ann")["token"], log_in(chat, "ann", how="login")["token"]
    laptop, phone = chat.connect(token=token), chat.connect(token=other)
    laptop.send(json.dumps({"type": "logout"}))
    for device in laptop, phone:
        assert device.wait_closed() == (4001, "logged out")
    assert chat.connect(token=token).wait_closed() == (4001, "log in again")


def test_guesses_from_one_address_end_before_they_take_all_threads(chat):
    ann = chat.connect(token=log_in(chat, "ann")["token"])
    answers = [log_in(chat, "ann", f"guess number {number}", how="login")["text"] for number in range(42)]
    refused = [text.startswith("too many log-ins from your address") for text in answers]
    assert 2 <= refused.count(True) <= 42 - 19  # 20 a minute, and perhaps a minute ends meanwhile
    assert set(answers) - {answers[refused.index(True)]} == {"name or password is wrong"}
    ann.send(json.dumps({"type": "message", "text": "I still talk"}))
    assert texts(ann) == [("ann", "I still talk")]


def test_a_failure_of_the_database_is_told(chat, tmp_path):
    ann = chat.connect(token=log_in(chat, "ann")["token"])
    with closing(sqlite3.connect(tmp_path / "accounts.sqlite3")) as database:
        database.execute("ALTER TABLE messages DROP COLUMN at")
    with pytest.raises(HandlerFailed, match="no column named at"):
        ann.send(json.dumps({"type": "message", "text": "hello"}))
    assert ann.take_json() == [{"type": "error", "text": "the server has failed: try again"}]


def test_without_a_login_nothing_is_said_or_seen(chat):
    ann = chat.connect(token=log_in(chat, "ann")["token"])
    guest = chat.connect()
    ann.send(json.dumps({"type": "message", "text": "hello"}))
    guest.send(json.dumps({"type": "message", "text": "me, too"}))
    assert guest.take_json() == [{"type": "error", "text": "name or password is wrong"}]
    assert texts(ann) == [("ann", "hello")]
