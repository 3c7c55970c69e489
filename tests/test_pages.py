"""What the pages in docs/ name exists: make's targets, files, commands, options, settings, metrics.

Their examples run in test_how_to, test_handshakes_page, test_migration, test_troubleshooting and test_tutorial.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.pages import PAGES, blocks, pictures, tables, text_of
from tests.programs import EXAMPLES, ROOT
from wsthreads import CloseCode, Config, RedisBroker, WebSocketApp, create_app
from wsthreads.cli.commands import cli
from wsthreads.errors import FINAL_CODES
from wsthreads.javascript import check_script
from wsthreads.monitoring.families import families

RUN_HELP = CliRunner().invoke(cli, ["run", "--help"]).output


def test_the_targets_of_make_that_they_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = "\n".join(map(text_of, PAGES))
    targets = set(re.findall(r"``make ([a-z-]+)", text)) | set(re.findall(r"\$ make ([a-z-]+)", text))
    assert {"run", "test", "stress", "docs"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_the_pictures_and_files_that_a_page_names_are_there(page: str) -> None:
    text = text_of(page)
    for picture, words in pictures(page):
        path = (ROOT / f"{page}.rst").parent / picture
        assert path.is_file() or path.name == "_map.svg", picture  # which each build of the pages makes
        assert words, f"{picture} has no alternative text"
    for path in re.findall(r"``((?:examples|tests|wsthreads|docs)/[\w./-]+\.\w+)``", text):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"``((?:examples|tests|wsthreads|docs)/(?:[\w-]+/)*)``", text):
        assert (ROOT / path).is_dir(), path


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_that_a_page_names_exist(page: str) -> None:
    commands = set(re.findall(r"(?:\$ |``)wsthreads (\w+)", text_of(page)))
    for command in commands:
        assert command in cli.commands, command


@pytest.mark.parametrize("page", PAGES)
def test_the_options_of_run_that_a_page_names_exist(page: str) -> None:
    for line in re.findall(r"(?:\$ |``)wsthreads run ([^\n`|]+)", text_of(page)):
        for option in re.findall(r"(?<!\S)--([a-z-]+)", line):
            assert re.search(rf"--(\[no-\])?{option.removeprefix('no-')}\b", RUN_HELP), f"{option} in {line}"


# Reference


def test_the_table_of_settings_is_the_configuration() -> None:
    named = re.findall(r"^``([a-z]\w+)`` +(\S+(?: MiB)?)  ", text_of("docs/reference/settings"), re.MULTILINE)
    assert {name for name, _ in named} == {field.name for field in dataclasses.fields(Config)}
    for name, shown in named:
        value = getattr(Config(), name)
        shown = re.sub(r"(?<=\d),(?=\d)", "", shown)
        words = {"1 MiB": 2**20, "16 MiB": 2**24, "none": type(value)(), "yes": True, "no": False, "auto": None}
        meant = words.get(shown, shown)
        if value is not None:
            meant = float(meant) if isinstance(value, float) else type(value)(meant)
        assert value == meant, name


def test_close_codes_have_words_on_the_page_and_are_in_the_reference() -> None:
    words = (ROOT / "wsthreads" / "dashboard" / "page" / "closecodes.js").read_text()
    reference = "\n".join(text_of(page) for page in PAGES if page.startswith("docs/reference/"))
    for code in CloseCode:
        assert re.search(rf"^  {int(code)}: \"", words, re.M), f"{code!r} is not in closecodes.js"
        if code not in (CloseCode.NO_STATUS, CloseCode.ABNORMAL):  # which are reported only
            assert re.search(rf"\b{int(code)}\b", reference), f"{code!r} is not in docs/reference"


def test_the_table_of_close_codes_says_what_the_clients_do() -> None:
    source = (ROOT / "wsthreads" / "client" / "wsthreads.js").read_text()
    stops = re.search(r"^const STOP_CODES = new Set\(\[([\d, ]+)\]\);", source, re.MULTILINE)
    assert stops is not None
    rows = re.findall(r"^(\d{4}) (stops|reconnects) ", text_of("docs/reference/close-codes"), re.MULTILINE)
    assert {int(code) for code, does in rows} >= set(CloseCode)
    final = set(map(int, stops[1].split(", ")))
    assert final == FINAL_CODES, "wsthreads.js and wsthreads/errors.py differ"
    assert {int(code) for code, does in rows if does == "stops"} == final - {1010}  # of clients only


def test_the_tables_of_metrics_are_the_metrics() -> None:
    pytest.importorskip("prometheus_client")
    app = create_app(EXAMPLES / "chat.js")
    app.metrics.add("past_max_fragments")
    found = {family.name for family in families(app)}
    broker = RedisBroker("redis://127.0.0.1:1")
    shared = WebSocketApp(broker=broker)
    found |= {family.name for family in families(shared)}
    named = {f"wsthreads_{row[0][0]}" for table in tables("docs/reference/metrics") for row in table if row[0]}
    assert named == found
    app.shutdown(), shared.shutdown()


# How-to


def test_the_figures_of_memory_are_those_measured() -> None:
    measured = json.loads((ROOT / "tests/bench/results/latest.json").read_text())["scenarios"]["memory"]["servers"]
    text = text_of("docs/how-to/sizing")
    for name, words in ("wsthreads", "Python handler"), ("wsthreads-js", "JavaScript handler"):
        (shown,) = re.findall(rf"an idle session, {words} +(\d+) KiB", text)
        assert abs(int(shown) - measured[name]["value"]["median"]) < 2, name


@pytest.mark.parametrize("page", [page for page in PAGES if "how-to" in page])
def test_scripts_on_a_page_can_be_loaded(page: str, tmp_path: Path) -> None:
    """What looks like a whole handler is one."""
    for number, block in enumerate(blocks(page, "javascript")):
        if re.search(r"^export function on", block, re.M) and not re.search(r"^import", block, re.M):
            path = tmp_path / f"script{number}.js"
            path.write_text(block)
            assert check_script(path, Config()).hooks, block
