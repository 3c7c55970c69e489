// Calls the functions of the handler, and reports their errors.

// The outcome of an event; the next pull reports it to Python. A positive number is a ticket: the number of a promise
// that the handler returned. "settled" follows later with the same ticket.
const DONE = 0;
const FAILED = -1;

let handlers = { __proto__: null };  // all exports of the script; only handler functions are called
let lastTicket = 0;

// Calls `handler` without `this`, and directly, so that a stack shows no frames of the runtime above the script's.
// `answer.returned`, if there is an `answer`, gets the value that the function returns, and may throw. `answer.failed`
// gets the error of the function, and says whether this is also an answer, not a failure.
function callHandler(hook, state, first, second, answer = null) {
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
        if (answer !== null) {
          answer.returned(result);
        }
        return DONE;
      }
      throw notRun(hook);
    }
  } catch (error) {
    result = handlerFailed(hook, state, error, isKnown, answer);
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
    const rest = outcome === FAILED ? onErrorFailed(state, error, isKnown)
      : handlerFailed(hook, state, error, isKnown, answer);
    if (rest !== undefined) {
      whenRun("onError", rest, () => settled(true), (again, isKnownAgain) => {
        onErrorFailed(state, again, isKnownAgain);
        settled(true);
      });
    } else {
      settled(true);
    }
  };
  whenRun(outcome === FAILED ? "onError" : hook, result, (value) => {
    if (answer !== null && outcome !== FAILED) {
      try {
        answer.returned(value);
      } catch (error) {
        failed(error);
        return;
      }
    }
    settled(outcome === FAILED);
  }, failed);
  return ticket;
}

// Calls a handler function that belongs to no session. `succeeded(value, ticket)` gets its return value, with the
// ticket of its promise if there was one. Its errors are not passed to onError.
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
// any.
function handlerFailed(hook, state, error, isKnown, answer) {
  if (answer !== null && answer.failed(error)) {
    return undefined;
  }
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

// `typeof`, with separate names for functions whose call only returns a generator.
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

// The error for a function that returned a generator. Its stack names the place of the function.
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

// `when` for the promise of a handler function. If its value is a generator, this is a failure.
function whenRun(hook, promise, fulfilled, failed) {
  when(promise, (value) => isGenerator(value) ? failed(notRun(hook), true) : fulfilled(value), (error) => failed(error));
}

// Used instead of `await`: `catch` cannot catch the error of a call that was stopped at its deadline.
function when(promise, fulfilled, rejected) {
  try {
    apply(then, resolved(promise), [fulfilled, rejected]);
  } catch (error) {  // the script has changed Promise
    rejected(error);
  }
}
