"""Everything is in setup.cfg, but for the C modules, which are optional: without a compiler all is pure Python."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "wsthreads._native._speedups",
            [f"wsthreads/_native/_{name}.c" for name in ("speedups", "inbox", "metrics", "reading", "rlock")],
            depends=[f"wsthreads/_native/_{name}.h" for name in ("frames", "inbox", "metrics", "reading", "rlock")],
            optional=True,
        ),
        Extension("wsthreads._native._bridge", ["wsthreads/_native/_bridge.c"], optional=True),
    ]
)
