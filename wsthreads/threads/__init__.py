"""Background threads, and how the threads of sessions are scheduled.

- `flusher`: the thread for timers and full sockets. `drainer`: the thread that sends for busy rooms.
- `pool`: a few threads for calls that may take long.
- `scheduling`: events that other packages report about their threads. `gil`: the decisions that follow under a GIL.
- `affinity`: keeps session threads on one core. `cpu_load`: finds a roomy core. `inheritance`: gives all cores back
  to threads that handlers start.
- `malloc`: fewer memory arenas. `garbage`: rarer full garbage collections. `stack_sizes`: larger stacks.
- `lookups`: looks up keys that other threads have made.
- `restarts`: restarts the work of a thread after an error.
- `blocking`: which threads may wait for a queue.
- `forks`: processes that handlers fork. `exit_blockers`: threads that keep the process from ending.
"""
