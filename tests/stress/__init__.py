"""The threaded stress test: ``python -m tests.stress``, or ``make stress``.

A server process, many client threads, and a checker that holds what they saw against what DESIGN.md 2.2 promises.

- `history` is what clients did and saw, and the little language they speak with the handler.
- `handler.py` and `handler.js` are the handler, in both languages: they do what clients say and keep a journal.
- `server` is the server process: app and control endpoint; `perturb` makes threads in it pause anywhere. `process`
  starts, watches and ends it.
- `client` is a strict WebSocket client on a raw socket; it shares no code with wsthreads.
- `visitor` is a client with one session after another, `roamer` is what it does at random, in its thread. `world` is
  what all share, `crew` has all do something together.
- `chaos` is the faults of a run: which and when. `daredevil` is a roamer that gets into trouble, `faults` is what fails
  inside of the server, `log` knows what of that belongs into the server's log.
- `checker` is the promises as code, `order` those about order. `run` is the course of a run: rounds, quiet points, end;
  `leftovers` is what must not be there in the end.
- `__main__` has the options and the summary.

Beside it, `model` runs many short random programs, in one process or in three that Redis joins: ``python -m
tests.stress.model``. `cluster` is a test of its own, of rooms over Redis: ``python -m tests.stress.cluster``, with
`machines` and `cluster_handler`.

The seed decides what each client does in each round, one step after another, and which faults there are. It does not
decide how threads interleave, nor so how far a client gets in a round: a run with the same seed is alike, not the same.
"""
