"""Background threads, and how the threads of sessions are scheduled.

- `flusher`, `drainer`: the two threads that serve all sessions: timers and full sockets; busy rooms.
- `scheduling`, `gil`: what core modules tell about their threads, and what that means under a GIL.
- `affinity`, `cpu_load`, `inheritance`: session threads on one core; a core with room; what handlers start there.
- `malloc`: fewer memory arenas of the C library.
- `restarts`: a thread goes on after an error.
- `blocking`: which threads may wait for a queue.
- `forks`, `exit_blockers`: processes that handlers fork; threads that keep the process from ending.
"""
