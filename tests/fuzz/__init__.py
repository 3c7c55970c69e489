"""Coverage-guided fuzzing: ``make fuzz``, or ``python -m tests.fuzz TARGET`` where atheris is installed.

`targets` says what each target holds to what; `javascript` and `handshakes` make something of raw bytes and judge what
came of it. The property tests of the suite use the same judges. `tests/protocol/test_fuzz.py` runs what is in `corpus`.
"""
