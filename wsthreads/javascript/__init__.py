"""Handlers in JavaScript: ES modules, run by QuickJS.

=====================  ===================================================================================
`handler`              the entry: a script as a `Handler`
`isolate`              owns the interpreter and the one thread that may use it
`event_queue`          what other threads have it do
`schedule`             which event is next
`loop`                 hands events to the JavaScript half
`endings`              what becomes of each event, and who hears of it
`replies`              answers for the threads that wait for an event
`probes`               measure how long events wait
`inbox`                the queue from the threads of sessions to the isolate's thread
`session_state`        what the isolate keeps of a session
`host`                 what a script can do outside of its interpreter: send, close, log
`host_rooms`           what it can do with rooms
`room_calls`           calls the functions of rooms, many at once
`lazy_parts`           loads parts of the JavaScript half when a script first uses them
`web`, `encodings`     what the web's globals need of Python
`calls`, `values`      how calls, messages and persons cross between the two languages
`reports`, `stacks`    log lines and stacks of a script's errors
`callees`              names what was called in "not a function"
`environment`          the names and values that a script imports as `env`; `masking` hides them in what leaves it
`exports`              which handler functions a script exports
`loader`, `imports`    finds and reads a script's files
`packages`             finds the files of npm's packages
`typescript`           compiles TypeScript, in a process of its own (`compiler_process`)
`interpreter`          adapts dukpy
`engine`, `quickjs`    reach below dukpy: deadlines, promise jobs
`interrupts`           how often the engine asks whether to stop
=====================  ===================================================================================

The JavaScript half is in ``runtime/``: the loop, the session and room objects, the console, the timers; in
``runtime/lazy/`` the web's globals.

Needs ``pip install dukpy``, which is imported only when a script is started.
"""

from wsthreads.javascript.handler import ScriptHandler, ScriptInfo, check_script

__all__ = ["ScriptHandler", "ScriptInfo", "check_script"]
