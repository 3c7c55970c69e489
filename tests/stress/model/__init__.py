"""Runs random programs on rooms and sessions, and compares the results with a model: ``python -m tests.stress.model``.

`tests.stress` tests one process for a long time. This tests one process, or three with Redis, in many short runs. The
guarantees are the same, and a failing program is small enough to understand.

- `program` makes the program of a seed: commands to the handler, and how clients connect, read and disconnect.
- `handler.py` and `handler.js` are the handler, in both languages; `server` is a process with it.
- `client` is a client. `run` is the course of a run, including the faults of Redis.
- `checker` is the model: what each client must and must not have received, as far as that is certain.
- `mutations` break the server on purpose. ``tests/test_model.py`` tests that the checker notices each.
- `__main__` has the options: more seeds, longer programs, other handlers and servers.

A seed decides the program, but not how threads and processes interleave. So you may have to repeat a failing seed
several times.
"""
