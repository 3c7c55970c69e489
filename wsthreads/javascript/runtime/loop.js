// The loop that pulls events from Python and calls the script's functions.

const MAX_FAILED_PULLS = 3;

const states = newMap();
let version = makeVersion();  // the version of the handlers
const loading = newMap();  // versions whose top level has not ended, by ticket
let dispatched = 0;  // the number of events begun, by which Python knows whether its last event arrived

// Returns when Python answers a pull with nothing. Throws if an event's call was stopped, or if it left too little
// memory to continue. Python then reports that event, and may call this again.
function loop() {
  hideHost();
  finishRoomCalls();
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
    if (sizeOfMap(updating) > 0) {
      updating = newMap();
    }
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

  request(event) {
    const message = event[4] ? receivedBytes(event[3] ?? null) : event[3] ?? receivedText();
    return callHandler("onRequest", states.get(event[1]), message, undefined, answerTo(event[2]));
  },

  replied,

  suspend(event) {
    const state = states.get(event[1]);
    return state === undefined ? DONE : callHandler("onSuspend", state, undefined, undefined, handedOver(state));
  },

  resume(event) {
    const state = states.get(event[1]);
    if (state !== undefined) {
      state.told.handshake = event[2];
    }
    return callHandler("onResume", state);
  },

  // Another process has passed the session here, with these attributes.
  adopt(event) {
    const state = makeState(event[1]);
    state.told.handshake = event[2];
    state.session = new Session(state);
    state.told.attributes = newMap();
    const names = keysOf(event[3]);
    for (let index = 0; index < names.length; index++) {
      state.told.attributes.set(names[index], event[3][names[index]]);
    }
    states.set(state.id, state);
    return DONE;
  },

  // The session's attributes, for another process.
  export(event) {
    let text = null, why = null;
    try {
      text = attributesInJson(states.get(event[1]).told);
    } catch (error) {
      why = `${error.message}`;
    }
    python("exported", text, why);
    return DONE;
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
      const { tickRate } = fresh;
      if (python("loaded", ticket, inJson(kinds), null, typeof tickRate === "number" ? tickRate : null, inspect(tickRate))) {
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

  rooms(event) {
    runRoomCalls(event);
    return DONE;
  },

  // The outcomes of posts. Each has its number, an error message or undefined, and whether it may have been handled.
  posted(event) {
    for (let index = 2; index < event.length; index += 3) {
      settlePost(event[index], event[index + 1], event[index + 2]);
    }
    return DONE;
  },

  result(event) {
    return returned(event[2], event[3], event[4], event[5], event[6], event[7]);
  },

  // The call of onReload. Follows directly after each load but the first.
  reload() {
    owner = version;
    return callWithoutSession("onReload", arrayOf(), () => {});
  },

  // A version is given up because its top level does not end.
  refuse(event) {
    const refused = loading.get(event[2]);
    if (refused !== undefined) {
      refused.hasEnded = true;
      loading.delete(event[2]);
    }
    return DONE;
  },
};

// A version is one loading of the script. It owns timers. `calls` counts the pending calls that began while it was the
// last version. `former` is the version before, if calls were pending when that version ended.
function makeVersion() {
  return { __proto__: null, hasEnded: false, calls: 0, former: null };
}

// Whether any call is pending that began while this was the last version, or earlier.
function isCalled(version) {
  for (let one = version; one !== null; one = one.former) {
    if (one.calls > 0) {
      return true;
    }
  }
  return false;
}

// `ticket` belongs to the session's last call that returned a promise. While that is pending, `calledIn` is the version
// in which it began.
function makeState(id) {
  const told = { __proto__: null, handshake: null, attributes: null, returned: null };
  return { __proto__: null, id, session: null, ticket: 0, calledIn: null, told };
}

function beginCall(state) {
  endCall(state);
  state.calledIn = version;
  version.calls++;
}

// Ends a call that has settled, or whose session was given up.
function endCall(state) {
  if (state !== undefined && state.calledIn !== null) {
    state.calledIn.calls--;
    state.calledIn = null;
  }
}

// Whether verdict_of, in Python, can judge the value unchanged.
function isPlain(value) {
  return value === undefined || value === null || typeof value === "boolean" || isFinite(value) ||
    typeof value === "string";
}

// Any other value as JSON: a list with its text. If the value has `close`, the code, the reason and the names of other
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

return { __proto__: null, loop, connect, describe, parcel, module, imported };
