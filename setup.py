"""The settings are in setup.cfg, except for two.

The C modules are optional: without a compiler, the package is pure Python. The long description is the README without
its pictures, because a package index does not have these files.
"""

import re
from pathlib import Path

from setuptools import Extension, setup

#: The files of the module `_speedups`, beside its own.
PARTS = ("fast_path", "inbox", "intake", "loop", "metrics", "outboxes", "reading", "rlock", "sending", "writes")

README = (Path(__file__).parent / "README.rst").read_text(encoding="utf-8")

setup(
    long_description=re.sub(r"\.\. image::.*\n(?: +.*\n)*\n?", "", README),
    long_description_content_type="text/x-rst",
    ext_modules=[
        Extension(
            "wsthreads._native._speedups",
            [f"wsthreads/_native/_{name}.c" for name in ("speedups", *PARTS)],
            depends=[f"wsthreads/_native/_{name}.h" for name in ("compat", "frames", *PARTS)],
            extra_compile_args=["-fvisibility=hidden"],  # so that calls between its files are direct
            optional=True,
        ),
        Extension(
            "wsthreads._native._bridge",
            [f"wsthreads/_native/_{name}.c" for name in ("bridge", "alarm")],
            depends=[f"wsthreads/_native/_{name}.h" for name in ("compat", "alarm")],
            extra_compile_args=["-fvisibility=hidden"],
            optional=True,
        ),
    ]
)
