from __future__ import annotations

import logging
import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.programs import DEADLINE_S, Program, connect, run_server
from wsthreads import Config, ConfigError, HandlerError, ScriptError, UsageError, WebSocketApp
from wsthreads.cli.targets import Target, add_target, create_app, find_targets, load_module


@pytest.fixture(autouse=True)
def same_imports_afterwards(monkeypatch):
    """Loading a file leaves traces in sys.path and sys.modules, on purpose."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    modules = sys.modules.copy()
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder: Path, name: str, text: str = "def on_open(session): pass\n") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


# Which files, at which paths


@pytest.mark.parametrize("name", ["chat.js", "chat.mjs", "chat.py"])
def test_a_file_is_served_by_its_name(folder, name):
    file = write(folder, name)
    assert find_targets([file]) == (Target("/ws/chat", file),)


def test_targets_are_told_apart_by_suffix(folder):
    assert [Target("/", Path(name)).is_script for name in ("a.js", "a.mjs", "a.py")] == [True, True, False]


def test_a_path_of_its_own_for_a_single_file(folder):
    assert find_targets([write(folder, "so so.js")], "/live/now")[0].path == "/live/now"


def test_a_directory_is_all_its_handler_files_in_order(folder):
    for name in ("b.js", "a.py", "c.mjs", "_helper.js", ".hidden.js", "notes.txt", "__init__.py", "deeper/d.js"):
        write(folder, name)
    assert [target.path for target in find_targets([folder])] == ["/ws/a", "/ws/b", "/ws/c"]


def test_types_beside_handlers_are_left_out(folder):
    files = [write(folder, name) for name in ("a.ts", "wsthreads.d.ts")]
    assert [target.path for target in find_targets(files)] == ["/ws/a"]
    with pytest.raises(UsageError, match="has types, and no handler"):
        find_targets(files[1:])


def test_the_same_file_twice_is_an_error(folder):
    file = write(folder, "chat.js")
    with pytest.raises(UsageError, match="would both have the path /ws/chat"):
        find_targets([file, folder])


def test_two_files_of_one_name_are_an_error_that_names_both(folder):
    one, other = write(folder, "chat.js"), write(folder, "chat.py")
    with pytest.raises(UsageError) as caught:
        find_targets([folder])
    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)


@pytest.mark.parametrize("name", ["chat room.js", "café.js", "a%2fb.py", "a+b.js"])
def test_a_name_that_makes_no_url_is_an_error(folder, name):
    with pytest.raises(UsageError, match="cannot be part of a URL; rename the file, or use --path"):
        find_targets([write(folder, name)])


def test_what_is_missing_is_named(folder):
    with pytest.raises(UsageError, match=r"nowhere\.js: no such file or directory"):
        find_targets([folder / "nowhere.js"])


def test_another_suffix_is_an_error(folder):
    with pytest.raises(UsageError, match=r"chat\.txt: a handler is a \.js, \.mjs, \.ts or \.py file"):
        find_targets([write(folder, "chat.txt")])


def test_an_empty_directory_is_an_error(folder):
    write(folder, "_only.js")
    with pytest.raises(UsageError, match=r"no \.js, \.mjs, \.ts or \.py file in this directory"):
        find_targets([folder])


@pytest.mark.parametrize("path", ["live", "", "/a b", "/a?b", "/a#b", "/a\nb"])
def test_a_path_that_is_none_is_an_error(folder, path):
    with pytest.raises(UsageError, match="a path begins with /"):
        find_targets([write(folder, "chat.js")], path)


def test_a_path_cannot_be_given_to_several_files(folder):
    write(folder, "a.js")
    write(folder, "b.js")
    with pytest.raises(UsageError, match="for a single file only, not for 2"):
        find_targets([folder], "/live")


# Python files


def test_a_module_has_the_name_of_its_file_and_hides_no_other(folder):
    module = load_module(write(folder, "json.py", "import json\nname = json.__name__ + __name__\n"))
    assert module.__name__ == "json.py"
    assert sys.modules["json"].loads("1") == 1
    assert module.__file__ == str(folder / "json.py")


def test_a_file_that_is_loaded_twice_is_run_twice(folder):
    file = write(folder, "chat_twice.py", "state = []\n")
    first, second = load_module(file), load_module(file)
    assert first is not second
    assert first.state is not second.state
    assert sys.modules["chat_twice"] is second
    file.write_text("1 / 0")
    with pytest.raises(ScriptError):
        load_module(file)
    assert sys.modules["chat_twice"] is second


@pytest.mark.parametrize("name", ["pooled.py", "pooled-too.py"])
def test_a_module_is_imported_by_its_name_in_other_processes(folder, name):
    """Its folder is on the path that such a process is given, and so it finds what lies beside it."""
    write(folder, "beside_pooled.py", "value = 42\n")
    module = load_module(write(folder, name, "import beside_pooled\ndef job(): return beside_pooled.value\n"))
    assert module.__name__ == name.removesuffix(".py")
    assert module.__spec__.origin == module.__file__ == str(folder / name)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(module.job).result(3 * DEADLINE_S) == 42


POOLED = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def job(n):
    return f"{n * n} by {__name__}"

def on_message(session, method):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        session.send(pool.submit(job, 7).result())
"""


def check_pools(url):
    with connect(f"{url}/ws/pooled") as client:
        for method in ("spawn", "forkserver"):
            client.send(method)
            assert client.recv(timeout=3 * DEADLINE_S) == "49 by pooled"


def test_a_handler_file_has_pools_of_processes_of_every_kind_under_run(folder):
    with run_server(write(folder, "pooled.py", POOLED)) as server:
        check_pools(server.ws_url)


def test_a_handler_file_has_pools_of_processes_of_every_kind_under_gunicorn(folder):
    application = f"wsthreads:create_app({str(write(folder, 'pooled.py', POOLED))!r})"
    options = ["-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "5", "-b", "127.0.0.1:0", application]
    with Program([sys.executable, "-m", "gunicorn", *options], cwd=folder) as server:
        check_pools(f"ws://127.0.0.1:{server.wait_for(r'Listening at: http://127.0.0.1:([0-9]+)')[1]}")


@pytest.mark.parametrize("name", ["json.py", "email.py", "pytest.py", "sys.py", "a.b.py", "wsthreads.py"])
def test_a_module_with_another_one_s_name_takes_no_place_of_it(folder, name):
    before = sys.modules.get(name.removesuffix(".py"))
    module = load_module(write(folder, name, "x = 1\n"))
    assert module.__name__.partition("#")[0] == name
    assert sys.modules.get(name.removesuffix(".py")) is before


def test_a_module_imports_what_lies_beside_it_even_later(folder):
    write(folder, "beside_one.py", "value = 1\n")
    write(folder, "beside_two.py", "value = 2\n")
    text = "import beside_one\ndef later():\n    import beside_two\n    return beside_two\n"
    module = load_module(write(folder, "chat.py", text))
    assert (module.beside_one.value, module.later().value) == (1, 2)
    assert sys.path[0] != str(folder)


def test_classes_of_a_module_can_be_found_again(folder):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
    module = load_module(write(folder, "points.py", text))
    assert pickle.loads(pickle.dumps(module.P(3))) == module.P(3)


def test_an_edit_within_the_same_second_is_not_missed(folder):
    file = write(folder, "chat.py", "x = 1\n")
    assert load_module(file).x == 1
    write(folder, "chat.py", "x = 2\n")
    assert load_module(file).x == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\ndef on_open(:\n", r"chat\.py:2:13: SyntaxError: "),
        ("a = 1\n\nimport nowhere_at_all\n", r"chat\.py:3: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f():\n    1 / 0\nf()\n", r"chat\.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('no')\n", r"chat\.py:2: SystemExit: no"),
        ("import asyncio\nraise asyncio.CancelledError\n", r"chat\.py:2: CancelledError: "),
        ("from . import other\n", r"chat\.py:1: ImportError: attempted relative import"),
        ("import json\njson.loads('{')\n", r"chat\.py:2: JSONDecodeError: "),
        ("a = '\0'\n", r"chat\.py.*: SyntaxError: .*null byte"),
    ],
)
def test_an_error_in_a_file_names_its_line_and_leaves_no_module(folder, text, message):
    with pytest.raises(ScriptError, match=message):
        load_module(write(folder, "chat.py", text))
    assert "chat.py" not in sys.modules
    assert str(folder) not in sys.path


def test_an_error_in_a_module_beside_it_names_that_module(folder):
    write(folder, "broken_beside.py", "x = (\n")
    with pytest.raises(ScriptError, match=r"broken_beside\.py:1: SyntaxError: '\(' was never closed$"):
        load_module(write(folder, "chat.py", "import broken_beside\n"))


# Apps


def test_a_script_and_a_module_become_endpoints(folder):
    write(folder, "one.js", "export function onMessage(session, message) { session.send(message) }\n")
    write(folder, "two.py")
    app = create_app(folder, max_sessions=5)
    try:
        assert [endpoint.path for endpoint in app.endpoints] == ["/ws/one", "/ws/two"]
        assert [endpoint.handler.name for endpoint in app.endpoints] == ["one.js", "two.py"]
        assert [set(endpoint.handler.hooks) for endpoint in app.endpoints] == [{"on_message"}, {"on_open"}]
        assert app.config == Config(max_sessions=5, serve_health=True)
    finally:
        app.shutdown(0)


@pytest.mark.parametrize(("name", "text"), [("chat.js", "export const a = 1;\n"), ("chat.py", "a = 1\n")])
def test_a_file_without_handler_functions_is_named(folder, name, text):
    with pytest.raises(HandlerError, match=name.replace(".", r"\.")):
        add_target(WebSocketApp(), Target("/ws/chat", write(folder, name, text)))


def test_a_file_whose_class_has_the_handler_functions_is_told_what_serves_it(folder):
    text = "from pathlib import Path\nclass Desk:\n    def on_message(self, session, message): pass\n"
    with pytest.raises(HandlerError, match="its class Desk has some, and is served by WebSocketApp"):
        add_target(WebSocketApp(), Target("/ws/desk", write(folder, "desk.py", text)))


def test_a_file_that_cannot_be_read_is_a_usage_error(folder):
    with pytest.raises(UsageError, match=r"gone\.py: No such file"):
        add_target(WebSocketApp(), Target("/ws/gone", folder / "gone.py"))


def test_an_app_needs_a_target():
    with pytest.raises(UsageError, match="nothing to serve"):
        create_app()


def test_what_is_no_name_of_a_file_is_no_target(folder):
    with pytest.raises(UsageError, match=r"a target is the name of a file or a directory, not a list: \['chat\.js'\]"):
        create_app(["chat.js"])


def test_a_broker_that_is_a_url_is_told_where_that_belongs(folder):
    with pytest.raises(ConfigError, match="a URL is for redis="):
        create_app(write(folder, "chat.py"), broker="redis://localhost")


def test_an_unknown_setting_is_named(folder):
    with pytest.raises(ConfigError, match="max_message_byte"):
        create_app(write(folder, "chat.py"), max_message_byte=1)


def test_static_has_to_be_a_directory(folder):
    file = write(folder, "chat.py")
    with pytest.raises(UsageError, match="not a directory"):
        create_app(file, static=file)


def test_loggers_named_after_the_module_work(folder, caplog):
    with caplog.at_level(logging.INFO):
        load_module(write(folder, "logging_chat.py", "import logging\nlogging.getLogger(__name__).info('hello')\n"))
    assert caplog.record_tuples == [("logging_chat", logging.INFO, "hello")]


def test_a_module_does_not_get_another_folder_s_module_in_place_of_its_own(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        write(folder / name, "twin_db.py", f"where = {name!r}\n")
        write(folder / name, "store.py", "'''Keeps rows.'''\nimport twin_db\n")
    assert load_module(folder / "one" / "store.py").twin_db.where == "one"
    assert load_module(folder / "one" / "store.py").twin_db.where == "one"
    with pytest.raises(ScriptError, match=r"import twin_db gives .*/one/twin_db\.py, .* and not twin_db\.py") as caught:
        load_module(folder / "two" / "store.py")
    assert (Path(caught.value.path).parent.name, caught.value.line) == ("two", 2)
    for code in ("def rows():\n    import twin_db\n", "try:\n    from twin_db import where\nfinally:\n    pass\n"):
        with pytest.raises(ScriptError, match=r"import twin_db gives .*/one/twin_db\.py"):
            load_module(write(folder / "two", "other.py", code))


def test_an_import_in_a_function_does_not_get_another_module_later(folder, monkeypatch):
    for name in ("first", "second"):
        write(folder, f"{name}/late_db.py", f"where = {name!r}\n")
        write(folder, f"{name}/late.py", "1\ndef rows():\n    import late_db\n    return late_db.where\n")
        write(folder, f"{name}/soon.py", "import late_db\n")
    rows = load_module(folder / "first" / "late.py").rows
    with pytest.raises(ScriptError, match=r"import late_db in a function would give .*/first/late_db\.py") as caught:
        load_module(folder / "second" / "late.py")
    assert (Path(caught.value.path).parent.name, caught.value.line) == ("second", 3)
    with pytest.raises(ScriptError, match=r"late_db would hide another late_db\.py from .*/first/late\.py, which"):
        load_module(folder / "second" / "soon.py")
    assert load_module(folder / "first" / "soon.py").late_db.where == rows() == "first"
    monkeypatch.delitem(sys.modules, "pytest")
    write(folder, "pytest.py")
    with pytest.raises(ScriptError, match=r"import pytest in a function would give .*/pytest/__init__\.py"):
        load_module(write(folder, "late.py", "def rows():\n    import pytest\n"))


def test_an_import_for_type_checkers_is_not_done_and_not_checked(folder):
    (folder / "one").mkdir()
    write(folder / "one", "typed_db.py", "")
    load_module(write(folder / "one", "typed_user.py", "import typed_db"))
    write(folder, "typed_db.py", "")
    for test in ("TYPE_CHECKING", "t.TYPE_CHECKING", "t.TYPE_CHECKING and t.NoReturn"):
        head = f"import typing as t\nfrom typing import TYPE_CHECKING\nif {test}:\n    import typed_db\n"
        load_module(write(folder, "chat.py", head))
        with pytest.raises(ScriptError, match="import typed_db gives"):
            load_module(write(folder, "chat.py", f"{head}else:\n    import typed_db\n"))
    head = "import typing as t\nif not t.TYPE_CHECKING:\n    pass\nelse:\n    import typed_db\n"
    load_module(write(folder, "chat.py", head))
    with pytest.raises(ScriptError, match="import typed_db gives"):
        load_module(write(folder, "chat.py", head.replace("pass", "import typed_db")))


@pytest.mark.parametrize("code", ["value = 0{}", "if 0: pass{}"])
def test_a_file_with_a_long_chain_is_loaded_or_refused(folder, code):
    part = " + 1" if "value" in code else "\nelif 0: pass"
    assert load_module(write(folder, "chat.py", code.format(part * 1000) + "\nlast = 1\n")).last == 1
    with pytest.raises(ScriptError, match=r"chat\.py: Python cannot compile such a long or"):
        load_module(write(folder, "chat.py", code.format(part * 100_000)))


def test_a_module_named_as_one_of_the_standard_library_hides_it_from_nobody(folder):
    write(folder, "queue.py", "def on_message(session, message): pass\n")
    assert load_module(write(folder, "user.py", "import queue\n")).queue.Queue
    for name in ("colorsys", "stringprep"):  # which nobody has imported
        sys.modules.pop(name, None)
        write(folder, f"{name}.py", "raise RuntimeError('this is a handler')\n")
    assert load_module(write(folder, "other.py", "import colorsys, stringprep\n")).colorsys.rgb_to_hsv
    with pytest.raises(ScriptError, match="this is a handler"):
        load_module(folder / "colorsys.py")
