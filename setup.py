"""Everything is in setup.cfg, but for the C module, which is optional: without a compiler all is pure Python."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("wsthreads._speedups", ["wsthreads/_speedups.c"], optional=True)])
