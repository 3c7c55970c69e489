"""Who may import whom, what an import may do, and how long a module may be."""

import ast
import importlib
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import wsthreads
from tests.programs import PROGRAM_S

ROOT = Path(wsthreads.__file__).parent

#: What is at the top level of the package. Each imports only what has a lower number, also for annotations.
LEVELS = {
    "errors": 0,
    "loggers": 0,
    "hosts": 0,
    "origins": 0,
    "_native": 0,
    "config": 1,
    "threads": 2,
    "monitoring": 3,
    "protocol": 4,
    "rooms": 5,
    "sessions": 6,
    "brokers": 7,
    "javascript": 7,
    "servers": 7,
    "client": 8,
    "dashboard": 9,
    "app": 10,
    "gunicorn": 11,
    "cli": 12,
    "django": 12,
    "testing": 13,
    "logs": 13,
    "prometheus": 13,
    "__main__": 13,
    "__init__": 14,
}

#: Packages that are not ours, and the only modules that may import them.
ONLY_THERE = {
    "django": {"django"},
    "gunicorn": {"gunicorn"},
    "dukpy": {"javascript"},
    "click": {"cli.commands", "cli.options"},
    "redis": {"brokers"},
    "prometheus_client": {"monitoring.prometheus", "monitoring.multiprocess"},
    "simple_websocket": {"protocol.connection"},
    "urllib3": {"javascript.http_connections", "javascript.http_responses"},
    "wsproto": {"protocol.assembler", "protocol.deflate", "client", "testing"},
    "pytest": {"testing"},
    "_thread": set(),
}

#: Names that people write in their programs and configurations, whatever moves.
WRITTEN_NAMES = [
    "wsthreads.WebSocketApp",
    "wsthreads.create_app",
    "wsthreads.django",
    "wsthreads.gunicorn.JSONLogger",
    "wsthreads.gunicorn.ThreadWorker",
    "wsthreads.logs.AddContext",
    "wsthreads.logs.JSONFormatter",
    "wsthreads.prometheus.WebSocketCollector",
    "wsthreads.testing.live_server",
    "wsthreads.testing.play",
]


def modules():
    """(dotted name below wsthreads, file) of every module."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts), path


def imports(path):
    """(module, name or None, line, whether it is only for annotations) of every import of a file."""
    tree = ast.parse(path.read_text())
    typing_only = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: a relative import"
            found = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in found:
            yield module, name, node.lineno, id(node) in typing_only


def our_imports():
    """(importing module, imported module, place) of every import of ours, but for names of the package itself."""
    names = {name for name, _ in modules()}
    for importer, path in modules():
        for module, name, line, _ in imports(path):
            root, _, imported = module.partition(".")
            if root != "wsthreads":
                continue
            below = f"{imported}.{name}".lstrip(".")
            imported = below if below in names else imported
            if imported:
                yield importer, imported, f"{path.relative_to(ROOT)}:{line}"


def test_everything_at_the_top_level_has_a_level_and_there_is_nothing_else():
    assert {name.partition(".")[0] for name, _ in modules()} == LEVELS.keys()


def test_the_docstring_of_the_package_lists_everything_at_the_top_level_from_the_bottom_up():
    listed = [re.findall(r"`(\w+)`", line) for line in re.findall(r"^- (`[^:]+):", wsthreads.__doc__, re.MULTILINE)]
    order = [name for names in listed for name in names]
    assert sorted([*order, "__main__", "__init__"]) == sorted(LEVELS)
    assert [LEVELS[name] for name in order] == sorted(LEVELS[name] for name in order)


def test_imports_lead_downward():
    wrong = []
    for importer, imported, place in our_imports():
        above, below = importer.partition(".")[0], imported.partition(".")[0]
        if above != below and LEVELS[below] >= LEVELS[above]:
            wrong.append(f"{place}: {above} ({LEVELS[above]}) imports {imported} ({LEVELS[below]})")
    assert not wrong, "\n".join(wrong)


def test_modules_have_at_most_400_lines():
    files = [path for suffix in ("*.py", "*.[ch]") for path in ROOT.rglob(suffix)]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert len(lengths) > 200
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set() for name, _ in modules()}
    for importer, imported, _ in our_imports():
        graph[importer].add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_module_of_brokers_uses_only_modules_that_their_docstring_lists_above_it():
    order = re.findall(r"^`(\w+)`", importlib.import_module("wsthreads.brokers").__doc__, re.MULTILINE)
    assert sorted(order) == sorted(path.stem for path in (ROOT / "brokers").glob("[!_]*.py"))
    wrong = []
    for importer, imported, place in our_imports():
        (package, _, user), (other, _, used) = importer.partition("."), imported.partition(".")
        if package == other == "brokers" and user and used and order.index(used) >= order.index(user):
            wrong.append(f"{place}: {user} uses {used}")
    assert not wrong, "\n".join(wrong)


def test_the_docstring_of_javascript_lists_its_modules():
    listed = re.findall(r"^`(\w+)`", importlib.import_module("wsthreads.javascript").__doc__, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "javascript").glob("[!_]*.py"))


def test_each_dependency_is_imported_by_its_adapter_only():
    wrong = []
    for importer, path in modules():
        for module, _, line, typing_only in imports(path):
            allowed = ONLY_THERE.get(module.partition(".")[0])
            inside = f"{importer}."
            if allowed is not None and not typing_only and not any(inside.startswith(f"{name}.") for name in allowed):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module}")
    assert not wrong, "\n".join(wrong)


def test_chance_comes_from_the_system_and_not_from_the_generator_that_applications_seed():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name or module}"
        for _, path in modules()
        for module, name, line, _ in imports(path)
        if module == "random" and name != "SystemRandom"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_public_names_are_there_and_no_others():
    for name in wsthreads.__all__:
        assert hasattr(wsthreads, name)
    assert len(set(wsthreads.__all__)) == len(wsthreads.__all__)


@pytest.mark.parametrize("name", WRITTEN_NAMES)
def test_names_that_people_write_stay(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)


@pytest.mark.parametrize("module", ["wsthreads", "wsthreads.app"])
def test_importing_starts_no_thread_and_brings_in_nothing_optional(module):
    code = (
        f"import {module}, sys, threading, signal\n"
        "print(sorted({'dukpy', 'gunicorn', 'click', 'redis', 'prometheus_client'} & sys.modules.keys()))\n"
        "print(threading.active_count(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, timeout=PROGRAM_S
    )
    assert (result.stdout, result.stderr) == ("[]\n1 True\n", "")


def test_an_app_imports_only_what_its_script_uses(tmp_path):
    script = tmp_path / "chat.js"
    script.write_text("export function onMessage(session, message) { session.send(message); }")
    unused = {
        "statistics", "urllib3", "werkzeug.routing", "wsthreads.brokers.redis",
        "wsthreads.hosts", "wsthreads.javascript.crossings", "wsthreads.javascript.declarations",
        "wsthreads.javascript.encodings", "wsthreads.javascript.fetch_exchange",
        "wsthreads.javascript.http_connections",
    }  # fmt: skip
    code = (
        "import sys\n"
        "from wsthreads import create_app\n"
        f"create_app({os.fspath(script)!r})\n"
        f"print(sorted({unused!r} & sys.modules.keys()))\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.fspath(ROOT.parent)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PROGRAM_S
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
