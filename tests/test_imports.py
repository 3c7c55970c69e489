"""Who may import whom, and what an import may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wsthreads
from tests.programs import DEADLINE_S

ROOT = Path(wsthreads.__file__).parent

#: A module imports only from a lower rank, or, in rank 0, what RANK_0 names. Imports for annotations do not count.
RANKS = {
    "formats": -2,
    "logs": -1,
    "heads": -1,
    "hints": -1,
    "origins": -1,
    "proxies": -1,
    "errors": 0,
    "config": 0,
    "striped": 0,
    "allowance": 0,
    "arenas": 0,
    "native": 0,
    "frames": 0,
    "metrics": 0,
    "hosts": 0,
    "handshake": 0,
    "restarts": 0,
    "contained": 0,
    "lingering": 0,
    "generators": 0,
    "patience": 0,
    "drainer": 0.5,
    "cores": 0,
    "stagger": 0,
    "streams": 0,
    "stalls": 0,
    "fitness": 1,
    "tls": 0,
    "strays": 0,
    "admission": 1,
    "affinity": 1,
    "deflate": 1,
    "flusher": 1,
    "transport": 1,
    "outbox": 1.5,
    "verdicts": 0.5,
    "handlers": 1,
    "connection": 2,
    "javascript": 2,
    "session": 3,
    "rooms": 3,
    "brokers": 4,
    "endpoint": 5,
    "health": 5,
    "prometheus": 5,
    "app": 6,
    "__init__": 7.2,
    "options": 7,
    "httpserver": 7,
    "static": 4,
    "targets": 7,
    "checks": 7.5,
    "sources": 0,
    "scaffold": 7,
    "browser": 5,
    "client": 7,
    "dashboard": 5.5,
    "django": 7,
    "gunicorn": 7,
    "serving": 7.5,
    "reloader": 7.6,
    "testing": 7.6,
    "cli": 8,
    "__main__": 9,
}

#: What the others of rank 0 may import.
RANK_0 = {"errors", "native"}

#: Packages that are not ours, and the only modules that may import them.
ONLY_THERE = {
    "django": {"django"},
    "gunicorn": {"gunicorn"},
    "dukpy": {"javascript"},
    "click": {"cli", "options"},
    "redis": {"brokers"},
    "prometheus_client": {"prometheus"},
    "simple_websocket": {"connection"},
    "wsproto": {"connection", "client", "deflate", "testing"},
    "pytest": {"testing"},
    "_thread": set(),
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        yield (parts[0] if len(parts) > 1 else path.stem), path


def imports(path):
    """(module, line, whether it is only for annotations, whether it is at the top) of every import of a file."""
    tree = ast.parse(path.read_text())
    typing_only = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: a relative import"
            names = [node.module]
        else:
            continue
        for name in names:
            yield name, node.lineno, id(node) in typing_only


def test_every_module_has_a_rank():
    assert {name for name, _ in modules()} <= RANKS.keys()


def test_a_module_imports_only_from_a_lower_rank():
    wrong = []
    for name, path in modules():
        for imported, line, typing_only in imports(path):
            root, _, rest = imported.partition(".")
            other = rest.partition(".")[0] or "__init__"
            if root != "wsthreads" or typing_only or other == name:
                continue
            fine = RANKS[other] < RANKS[name] or (RANKS[other] == RANKS[name] == 0 and other in RANK_0)
            if not fine:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {name} (rank {RANKS[name]}) imports {other}")
    assert not wrong, "\n".join(wrong)


def test_each_dependency_is_imported_by_its_adapter_only():
    wrong = []
    for name, path in modules():
        for imported, line, typing_only in imports(path):
            allowed = ONLY_THERE.get(imported.partition(".")[0])
            if allowed is not None and name not in allowed and not typing_only:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {imported}")
    assert not wrong, "\n".join(wrong)


def test_the_public_names_are_there_and_no_others():
    for name in wsthreads.__all__:
        assert hasattr(wsthreads, name)
    assert len(set(wsthreads.__all__)) == len(wsthreads.__all__)


@pytest.mark.parametrize("module", ["wsthreads", "wsthreads.app"])
def test_importing_starts_no_thread_and_brings_in_nothing_optional(module):
    code = (
        f"import {module}, sys, threading, signal\n"
        "print(sorted({'dukpy', 'gunicorn', 'click', 'redis', 'prometheus_client'} & sys.modules.keys()))\n"
        "print(threading.active_count(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (result.stdout, result.stderr) == ("[]\n1 True\n", "")
