"""The threaded stress test: ``python -m tests.stress``, or ``make stress``.

A server process, many client threads, and a checker that compares what they received with the guarantees.

- `history` records what clients did and received. It also defines the small language of clients and handler.
- `handler.py` and `handler.js` are the handler, in both languages: they execute clients' commands and keep a journal.
- `server` is the server process: app and control endpoint. `perturb` makes its threads pause at random lines. `process`
  starts, watches and ends it.
- `client` is a strict WebSocket client on a raw socket; it shares no code with wsthreads.
- `survivor` has the same methods, speaks ``wsthreads.1``, and comes back to its session after each lost connection.
  Half of all sessions do. For the checker, they are like the others.
- `visitor` is a client with one session after another; `roamer` adds its random actions, in its own thread. `world` is
  shared by all clients; `crew` makes all clients do something together.
- `chaos` chooses the faults of a run and their times. `daredevil` is a roamer that causes faults; `faults` are faults
  inside the server; `log` knows which log lines they explain.
- `checker` is the guarantees as code; `order` has those about order. `run` is the course of a run: rounds, quiet
  points, end. `leftovers` checks that nothing remains at the end.
- `__main__` has the options and the summary.

`model` runs many short random programs, in one process or in three processes with Redis: ``python -m
tests.stress.model``. `cluster` is a separate test of rooms over Redis: ``python -m tests.stress.cluster``, with
`machines` and `cluster_handler`.

The seed decides the sequence of each client's actions in each round, and the faults. It does not decide how threads
interleave, or how far a client gets in a round. So two runs with the same seed are similar, not identical.
"""
