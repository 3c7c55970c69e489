"""Handlers in JavaScript: ES modules, run by QuickJS.

One half of this package is in Python. The other half, the *runtime*, is in JavaScript, in ``runtime/``.

Words with one meaning in all modules of this package:

=============  =============================================================================
isolate        a script's interpreter, and the one thread that may use it
engine         QuickJS, which runs the JavaScript
event          something that the isolate has to handle, such as a message of a session;
               its *kind* is the name of a function of the runtime
call           the run of a script's function for an event, with the promise that it returns
pending        said of a promise: not settled yet; also of the event of its call
promise job    a function that the engine has to call because a promise has settled
ticket         the number under which the runtime keeps a promise
parcel         an object of the engine with the texts and bytes that are too long for JSON
top level      the code of a script outside of functions; a *load* runs it
handle         an object by which a script uses a room, a user or a session
room call      a call of a function for a room, such as onPost or onTick
=============  =============================================================================

The isolate:

====================  ======================================================================
`handler`             the entry: a script as a `Handler`
`isolate`             owns the interpreter and the one thread that may use it
`event_queue`         the calls of other threads to the isolate
`inbox`               the queue from the threads of sessions to the isolate's thread
`session_state`       the isolate's data of a session
`schedule`            chooses the next event
`loop`                passes events to the JavaScript half
`message_loop`        the fast path of the loop, from one text message to the next
`endings`             ends events, and tells the threads that wait for them
`replies`             answers the threads that wait for an event
`probes`              measures how long events wait
`call_times`          measures how long the functions of a script take
====================  ======================================================================

The actions and values of a script:

====================  ======================================================================
`host`                sends to sessions and closes them; the console
`host_rooms`          acts on rooms
`requests`            requests to clients, and answers to the requests of clients
`room_calls`          calls the functions of rooms, many at once
`values`              converts messages and persons between the two languages
`calls`               the arguments and answers of Python functions that JavaScript calls
`environment`         the names and values that a script imports as `env`
`masking`             hides these values in the script's output
====================  ======================================================================

The files of a script:

====================  ======================================================================
`exports`             reads the handler functions that a script exports
`loader`              finds and reads the script's modules
`imports`             explains imports that fail
`packages`            finds the files of npm packages
`module_ids`          the ids of modules in the engine
`sources`             the sources of modules, and the code that the engine got for them
`typescript`          compiles TypeScript, in its own process
`compiler_process`    the program of this process
====================  ======================================================================

Python files that a script imports:

====================  ======================================================================
`python_functions`    finds the functions
`python_calls`        calls them
`python_generators`   generators that the script iterates
`python_pool`         the threads for these calls
`python_values`       converts arguments and results
`declarations`        writes TypeScript declarations for the functions
`crossings`           finds parameters and results that cannot be converted
====================  ======================================================================

The web's globals:

====================  ======================================================================
`lazy_parts`          loads parts of the JavaScript half when a script first uses them
`web`                 the Python half of the web's globals
`encodings`           the encodings of the Encoding Standard
`domains`             domain names in URLs
`fetches`             the fetches of a script
`fetch_exchange`      one request of a fetch, and its response
`fetch_requests`      checks the requests
`http_connections`    HTTP connections
`http_uploads`        sends bodies of requests
`http_responses`      HTTP responses
`name_lookups`        looks up the names of hosts
====================  ======================================================================

The engine:

====================  ======================================================================
`interpreter`         adapts dukpy
`engine`              controls QuickJS below dukpy: deadlines, promise jobs
`quickjs`             the part of QuickJS's C API that is used
`alarm`               stops a call at its deadline
`interrupts`          sets how often the engine asks whether to stop
`reports`             logs and counts a script's errors
`stacks`              the stacks of these errors
`callees`             names the called value in "not a function"
====================  ======================================================================

The runtime has the loop, the objects for sessions and rooms, the console, and the timers. ``runtime/lazy/`` has the
web's globals.

Needs ``pip install dukpy``, which is imported only when a script is started.
"""

from wsthreads.javascript.handler import ScriptHandler, ScriptInfo, check_script

__all__ = ["ScriptHandler", "ScriptInfo", "check_script"]
