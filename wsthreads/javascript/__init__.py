"""Handlers in JavaScript: ES modules, run by QuickJS.

`handler` is the way in. `isolate` owns the interpreter and its thread; `loop` and `schedule` decide what it does next,
`session_state` is what they keep of a session, `reports` what they log. `host` is what a script can do outside.
`interpreter` and `loader` adapt dukpy; `engine`, `interrupts` and `quickjs` reach below it. The session and room objects,
the console and the timers are JavaScript, in ``runtime/``.

Needs ``pip install dukpy``, which is imported only when a script is started.
"""

from wsthreads.javascript.handler import ScriptHandler, ScriptInfo, check_script

__all__ = ["ScriptHandler", "ScriptInfo", "check_script"]
