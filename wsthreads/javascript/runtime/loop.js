// The loop that pulls events from Python and calls the script's functions.

// What became of an event; the next pull reports it to Python. A positive number is a ticket: the number of a promise
// that the handler returned. "settled" follows later with the same ticket.
const DONE = 0;
const FAILED = -1;

const MAX_FAILED_PULLS = 3;

const states = newMap();
let handlers = { __proto__: null };  // all that the script exports; only functions of a handler are called
let version = makeVersion();  // the version that the handlers are of
const loading = newMap();  // versions whose top level has not ended, by ticket
let lastTicket = 0;
let dispatched = 0;  // how many events were begun; tells Python whether its last event arrived

// Returns when Python answers a pull with nothing. Throws when an event's call was stopped, or left no memory to
// continue. Python then reports that event, and may call this again.
function loop() {
  hideHost();
  let outcome = DONE;
  let failedPulls = 0;
  for (;;) {
    let event;
    try {
      event = answered(python("pull", dispatched, outcome, untilNextTimer()));
    } catch (error) {  // no memory for the call or its answer
      if (++failedPulls > MAX_FAILED_PULLS) {
        throw error;
      }
      continue;
    }
    if (event === undefined) {
      return;
    }
    failedPulls = 0;
    dispatched++;
    owner = null;
    isInJob = false;
    outcome = dispatch[event[0]](event);
  }
}

const dispatch = {
  __proto__: null,

  again() {
    return DONE;
  },

  timer() {
    runTimer();
    return DONE;
  },

  // An event is [kind, id of a session, arguments …].

  message(event) {
    return callHandler("onMessage", states.get(event[1]), event[2] ?? receivedText());
  },

  binary(event) {
    return callHandler("onMessage", states.get(event[1]), receivedBytes(event[2]));
  },

  open(event) {
    const id = event[1];
    const state = states.get(id) ?? makeState(id);
    state.told.handshake = event[2];
    state.session = new Session(state);
    states.set(id, state);
    return callHandler("onOpen", state);
  },

  close(event) {
    const state = states.get(event[1]);
    states.delete(event[1]);
    endCall(state);
    return state === undefined ? DONE : callHandler("onClose", state, event[2], event[3]);
  },

  forget(event) {
    endCall(states.get(event[1]));
    states.delete(event[1]);
    return DONE;
  },

  look(event) {
    const entries = arrayOf();
    states.get(event[2])?.told.attributes?.forEach((value, key) => {
      const isText = typeof value === "string";
      append(entries, key);
      append(entries, isText ? "text" : "other");
      append(entries, isText ? value : inspect(value));
    });
    answered(python("looked", inJson(entries)));
    return DONE;
  },

  handshake(event) {
    const id = event[1];
    const state = makeState(id);
    state.told.handshake = event[2];
    states.set(id, state);
    const handler = handlers.onHandshake;
    const answer = (value) => {
      endCall(state);
      let words = null;
      try {
        words = isPlain(value) ? null : inWords(value);
      } catch (error) {  // a getter or a proxy threw
        refuse(error);
        return;
      }
      python("answer", id, true, words === null ? value ?? null : null, words);
    };
    const refuse = (error, isKnown = false) => {
      endCall(state);
      states.delete(id);
      python("failed", "onHandshake", id, describe(error), isKnown);
      python("answer", id, false, null);
    };
    try {
      const result = handler === undefined ? undefined : handler(new Request(state));
      if (isThenable(result)) {
        beginCall(state);
        whenRun("onHandshake", result, answer, refuse);
      } else if (isGenerator(result)) {
        refuse(notRun("onHandshake"), true);
      } else {
        answer(result);
      }
    } catch (error) {
      refuse(error);
    }
    return DONE;
  },

  load(event) {
    const ticket = event[2];
    const fresher = owner = makeVersion();
    loading.set(ticket, fresher);
    when(import(event[3]), (module) => {
      const names = keysOf(module);
      const kinds = arrayOf();
      const fresh = { __proto__: null };
      for (let index = 0; index < names.length; index++) {
        const name = names[index];
        append(kinds, name);
        append(kinds, kindOfExport(module[name]));
        fresh[name] = module[name];
      }
      loading.delete(ticket);
      if (python("loaded", ticket, inJson(kinds), null)) {
        version.hasEnded = true;
        fresher.former = isCalled(version) ? version : null;
        version = fresher;
        handlers = fresh;
      } else {
        fresher.hasEnded = true;
      }
    }, (error) => {
      loading.delete(ticket);
      fresher.hasEnded = true;
      python("loaded", ticket, null, describe(error));
    });
    return DONE;
  },

  presence(event) {
    return callWithoutSession("onPresence", arrayOf(new Room(null, event[2]), event[3]), (value, ticket) => {
      if (value !== undefined && value !== null) {
        carried("presented", "onPresence returns", value, ticket);
      }
    });
  },

  // Comes right after a load that was not the first one.
  reload() {
    owner = version;
    return callWithoutSession("onReload", arrayOf(), () => {});
  },

  // A version is given up: its top level does not end.
  refuse(event) {
    const refused = loading.get(event[2]);
    if (refused !== undefined) {
      refused.hasEnded = true;
      loading.delete(event[2]);
    }
    return DONE;
  },
};

// A version: one loading of the script, as the owner of timers. `calls` counts the pending calls that began while it was
// the last version. `former` is the version before, if calls were pending when that ended.
function makeVersion() {
  return { __proto__: null, hasEnded: false, calls: 0, former: null };
}

// Whether a call is pending that began while this was the last version, or earlier.
function isCalled(version) {
  for (let one = version; one !== null; one = one.former) {
    if (one.calls > 0) {
      return true;
    }
  }
  return false;
}

// `ticket` is that of the session's last call that returned a promise. `calledIn` is the version in which it began, while
// it is pending.
function makeState(id) {
  const told = { __proto__: null, handshake: null, attributes: null };
  return { __proto__: null, id, session: null, ticket: 0, calledIn: null, told };
}

function beginCall(state) {
  endCall(state);
  state.calledIn = version;
  version.calls++;
}

// The call has settled, or its session has been given up.
function endCall(state) {
  if (state !== undefined && state.calledIn !== null) {
    state.calledIn.calls--;
    state.calledIn = null;
  }
}

// Whether verdict_of, in Python, can judge the value as it is.
function isPlain(value) {
  return value === undefined || value === null || typeof value === "boolean" || isFinite(value) ||
    typeof value === "string";
}

// Any other value, in JSON: a list with its text. If the value has `close`, the code, the reason and the names of other
// properties follow.
function inWords(value) {
  if (typeof value !== "object" || !("close" in value)) {
    return `[${quote(inspect(value))}]`;
  }
  const { close, reason, ...others } = value;
  const words = reason === undefined ? '""' : literal(reason);
  return `[${quote(inspect(value))},${literal(close)},${words},${inJson(keysOf(others))}]`;
}

function literal(value) {
  if (typeof value === "string" || !isPlain(value)) {
    return quote(typeof value === "string" ? value : inspect(value));
  }
  return `${value ?? null}`;
}

// Calls `handler` without `this`, and directly, so that a stack shows no frames of the runtime above the script's.
function callHandler(hook, state, first, second) {
  const handler = handlers[hook];
  if (handler === undefined || state === undefined) {
    return DONE;
  }
  let result;
  let outcome = DONE;
  let isKnown = false;
  try {
    result = handler(state.session, first, second);
    if (!isThenable(result)) {
      isKnown = isGenerator(result);
      if (!isKnown) {
        return DONE;
      }
      throw notRun(hook);
    }
  } catch (error) {
    result = handlerFailed(hook, state, error, isKnown);
    outcome = FAILED;
    if (result === undefined) {
      return FAILED;
    }
  }
  const ticket = state.ticket = ++lastTicket;
  beginCall(state);
  const settled = (failed) => {
    if (ticket === state.ticket) {
      endCall(state);
    }
    python("settled", ticket, failed);
  };
  const failed = (error, isKnown = false) => {
    const answer = outcome === FAILED ? onErrorFailed(state, error, isKnown)
      : handlerFailed(hook, state, error, isKnown);
    if (answer !== undefined) {
      whenRun("onError", answer, () => settled(true), (again, isKnownAgain) => {
        onErrorFailed(state, again, isKnownAgain);
        settled(true);
      });
    } else {
      settled(true);
    }
  };
  whenRun(outcome === FAILED ? "onError" : hook, result, () => settled(outcome === FAILED), failed);
  return ticket;
}

// Calls a handler function that belongs to no session. `succeeded(value, ticket)` gets what it returned, with the ticket
// of its promise if there was one. There is no onError for its errors.
function callWithoutSession(hook, values, succeeded) {
  const handler = handlers[hook];
  if (handler === undefined) {
    return DONE;
  }
  const failed = (error, isKnown = false) => void python("failed", hook, null, describe(error), isKnown);
  try {
    const result = apply(handler, undefined, values);
    if (isGenerator(result)) {
      failed(notRun(hook), true);
      return FAILED;
    }
    if (!isThenable(result)) {
      succeeded(result, 0);
      return DONE;
    }
    const ticket = ++lastTicket;
    whenRun(hook, result, (value) => {
      let hasFailed = false;
      try {
        succeeded(value, ticket);
      } catch (error) {
        hasFailed = true;
        failed(error);
      }
      python("settled", ticket, hasFailed);
    }, (error, isKnown) => {
      failed(error, isKnown);
      python("settled", ticket, true);
    });
    return ticket;
  } catch (error) {
    failed(error);
    return FAILED;
  }
}

// Logs the error, unless an equal one was logged (`isKnown`), and passes it to onError. Returns onError's promise, if
// it returns one.
function handlerFailed(hook, state, error, isKnown) {
  python("failed", hook, state.id, describe(error), isKnown);
  const { onError } = handlers;
  if (onError !== undefined) {
    try {
      const answer = onError(state.session, error);
      if (isGenerator(answer)) {
        onErrorFailed(state, notRun("onError"), true);
        return undefined;
      }
      return isThenable(answer) ? answer : undefined;
    } catch (again) {
      onErrorFailed(state, again);
    }
  }
  return undefined;
}

function onErrorFailed(state, error, isKnown = false) {
  python("failed", "onError", state.id, describe(error), isKnown);
}

// `typeof`, with own names for functions whose call only returns a generator.
function kindOfExport(value) {
  const prototype = typeof value === "function" ? attempt(() => getPrototypeOf(value), null) : null;
  if (prototype === GENERATOR_FUNCTION) {
    return "generator function";
  }
  return prototype === ASYNC_GENERATOR_FUNCTION ? "async generator function" : typeof value;
}

function isGenerator(value) {
  return typeof value === "object" && value !== null &&
    (apply(isPrototypeOf, GENERATOR, [value]) || apply(isPrototypeOf, ASYNC_GENERATOR, [value]));
}

// The error for a function that returned a generator. Its stack is the place of the function.
function notRun(hook) {
  const handler = handlers[hook];
  const error = new ERRORS.TypeError(`${hook} returned a generator, whose body never runs: drop the *`);
  const place = attempt(() => `${handler.fileName}:${handler.lineNumber}:${handler.columnNumber}`, "");
  defineProperty(error, "stack", { __proto__: null, value: `    at ${hook} (${place})`, configurable: true });
  return error;
}

function isThenable(value) {
  return typeof value === "object" && value !== null && typeof value.then === "function";
}

// `when`, for the promise of a handler function. A generator as its value is a failure.
function whenRun(hook, promise, fulfilled, failed) {
  when(promise, (value) => isGenerator(value) ? failed(notRun(hook), true) : fulfilled(value), (error) => failed(error));
}

// Instead of `await`: the error of a call that was stopped at its deadline cannot be caught by `catch`.
function when(promise, fulfilled, rejected) {
  try {
    apply(then, resolved(promise), [fulfilled, rejected]);
  } catch (error) {  // the script has changed Promise
    rejected(error);
  }
}

return { __proto__: null, loop, connect, describe, parcel, module };
