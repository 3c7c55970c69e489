"""The benchmark: compares wsthreads with alternatives, and with a minimal C server as the limit.

``make bench``, or ``python -m tests.bench``. Modules, each of which uses only earlier ones: `results` (samples and
statistics), `processes`, `tools` (builds and installs), `servers`, `load` (the load generator, wsload.c), `runs`,
`probes`, `scenarios`, `runner`; for output `report`, `chart` and `cli`.
"""
