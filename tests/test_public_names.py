"""Names outside of the API that users write into their configuration: a move of modules must not change them."""

import importlib
import logging
import re
from pathlib import Path

import pytest

import wsthreads
from wsthreads.dashboard.access import SUBPROTOCOL
from wsthreads.monitoring.logs import SESSION_KEY
from wsthreads.threads import blocking

PACKAGE = Path(wsthreads.__file__).parent
DOCS = PACKAGE.parent / "docs"
SOURCES = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))


def test_the_keys_of_the_environ_stay():
    """`--access-logformat '%({wsthreads.session}e)s'` is what a user's configuration has."""
    assert SESSION_KEY == "wsthreads.session"
    assert set(re.findall(r"\"(wsthreads\.(?:adopt|behind_proxy|input|passed_on|session))\"", SOURCES)) == {
        "wsthreads.adopt", "wsthreads.behind_proxy", "wsthreads.input", "wsthreads.passed_on", "wsthreads.session",
    }  # fmt: skip


def test_the_subprotocol_of_the_page_about_the_server_stays():
    assert SUBPROTOCOL == "wsthreads.live"


def test_loggers_that_the_code_or_the_docs_name_belong_to_a_module():
    texts = "\n".join([SOURCES, *(file.read_text() for file in DOCS.rglob("*.rst"))])
    named = set(re.findall(r"getLogger\(\"(wsthreads[a-z_.]*)\"\)", texts)) - {"wsthreads", "wsthreads.script"}
    for name in named:
        module = name.removesuffix(".slow")
        importlib.import_module(module)
        assert name in logging.root.manager.loggerDict


def test_the_modules_whose_locks_are_looked_for_exist():
    for name in blocking.LOCKING:
        importlib.import_module(name)


@pytest.mark.parametrize("name", sorted({*re.findall(r"``(wsthreads-[a-z.…-]+)``",
                                                     (DOCS / "explanation" / "threads.rst").read_text())}))  # fmt: skip
def test_the_threads_that_the_docs_name_have_these_names(name):
    name = name.replace("chat.js", "{self.name}").rstrip("…")
    assert re.search(rf"(?:name: str = |name=f?|Drainer\(f?)\"{re.escape(name)}", SOURCES)
