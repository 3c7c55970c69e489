"""Everything is in setup.cfg, but for the C modules, which are optional: without a compiler all is pure Python."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "wsthreads._speedups",
            ["wsthreads/_speedups.c", "wsthreads/_inbox.c"],
            depends=["wsthreads/_frames.h", "wsthreads/_inbox.h", "wsthreads/_turnstile.h"],
            optional=True,
        ),
        Extension("wsthreads.javascript._bridge", ["wsthreads/javascript/_bridge.c"], optional=True),
    ]
)
