"""``python -m tests.fuzz TARGET [OPTION…]``: run a target under libFuzzer, whose options follow; see ``make fuzz``.

Without atheris (PyPI) it says so. What crashes is kept in build/fuzz, and is run again by giving the file's name.
"""

from __future__ import annotations

import sys

#: Modules whose Python code is to be covered. C code is where it was compiled for it.
COVERED = ["wsthreads", "wsproto"]


def main() -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("fuzzing needs atheris: pip install atheris, or make fuzz")
    with atheris.instrument_imports(include=COVERED):
        from tests.fuzz.targets import TARGETS
    name, options = "".join(sys.argv[1:2]), sys.argv[2:]
    if name not in TARGETS:
        sys.exit(f"there is no target {name!r}; there are: {', '.join(TARGETS)}")
    with TARGETS[name]() as check:
        atheris.Setup([sys.argv[0], *options], check)
        atheris.Fuzz()  # ends the process


main()
