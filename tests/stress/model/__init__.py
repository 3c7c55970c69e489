"""Rooms and sessions under a random program, against a model: ``python -m tests.stress.model``.

Where `tests.stress` looks at one process for a long time, this looks at three that Redis joins, or at one, in many
short runs: the same promises for both, and small enough to be understood when one is broken.

- `program` is what is done, by seed: commands to the handler, and how clients come, read and go.
- `handler.py` and `handler.js` are the handler, in both languages; `server` is a process with it.
- `client` is a client, `run` the course of a run, with what becomes of Redis meanwhile.
- `checker` is the model: what each client must have seen, and must not have, as far as that is certain.
- `mutations` break the server in ways that the checker has to notice, as ``tests/test_model.py`` has it.
- `__main__` has the options: more seeds, longer programs, other handlers and servers.

A seed decides on the program, and not on how threads and processes interleave: a seed that has found something may have
to be tried some times until it does again.
"""
