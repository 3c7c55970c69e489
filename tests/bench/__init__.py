"""The benchmark: wsthreads beside what people would pick instead, and beside the least that the kernel allows.

``make bench``, or ``python -m tests.bench``. In the order in which they build on each other: `results` (samples, and
what is computed from them), `processes`, `tools` (what has to be built and installed), `servers`, `load` (the load
generator, wsload.c), `runs`, `probes`, `scenarios`, `runner`; for people `report`, `chart` and `cli`.
"""
