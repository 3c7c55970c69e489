// The script's requests to its clients, their outcomes, and the answers to requests of clients. Also the attributes of
// a session as JSON, for another process.

const MAX_WAIT_MS = 2 ** 31 - 1;
const MAX_ATTRIBUTE_LEVELS = 200;
const REQUEST_OPTIONS = arrayOf("timeoutMs");

// Requests without an outcome, by ticket.
const requests = newMap();

let isRequestError;

class RequestError extends ERRORS.Error {
  #isOne = true;

  static {
    isRequestError = (value) => typeof value === "object" && value !== null && #isOne in value;
  }
}

class RequestTimeout extends ERRORS.Error {}

class SessionClosed extends ERRORS.Error {}

class SessionMoved extends ERRORS.Error {}

const REQUEST_ERRORS = freeze({ __proto__: null, RequestError, RequestTimeout, SessionClosed, SessionMoved });
for (const [name, kind] of Object.entries(REQUEST_ERRORS)) {
  setHidden(kind.prototype, "name", name);
  freeze(kind);
}

// The promise of a request to the client of a session.
function requested(id, message, options) {
  const ticket = ++lastTicket;
  const request = { __proto__: null, resolve: null, reject: null, stack: callStack(), owner };
  return new ThePromise((resolve, reject) => {
    request.resolve = resolve;
    request.reject = reject;
    requests.set(ticket, request);
    try {
      const given = optionsOf("session.request", options, REQUEST_OPTIONS).timeoutMs;
      const refusal = carried("request", "session.request takes", message, id, ticket, ifGiven(given, checkedTimeout));
      if (refusal !== undefined) {
        settleRequest(ticket, refusal[0], refusal[1]);
      }
    } catch (error) {
      requests.delete(ticket);
      reject(error);
    }
  });
}

function checkedTimeout(timeoutMs) {
  if (!isFinite(timeoutMs) || timeoutMs <= 0 || timeoutMs > MAX_WAIT_MS) {
    const kind = typeof timeoutMs === "number" ? ERRORS.RangeError : ERRORS.TypeError;
    throw new kind(`timeoutMs is a number of milliseconds from above 0 to ${MAX_WAIT_MS}, not ${upTo(inspect(timeoutMs), 40)}`);
  }
  return timeoutMs;
}

// `name` is the class of an error with the text `value`, or null.
function settleRequest(ticket, name, value) {
  const request = requests.get(ticket);
  if (request === undefined) {
    return;
  }
  requests.delete(ticket);
  if (name === null || name === undefined) {
    request.resolve(value);
    return;
  }
  const error = new REQUEST_ERRORS[name](value);
  setHidden(error, "stack", request.stack);
  request.reject(error);
}

// The event of an outcome: [kind, null, ticket, class of an error or null, value, whether it is binary].
function replied(event) {
  const value = event[5] ? receivedBytes(event[4] ?? null) : event[4] ?? null;
  const request = requests.get(event[2]);
  if (request !== undefined) {
    owner = request.owner;
    isInJob = true;
    settleRequest(event[2], event[3], value);
  }
  return DONE;
}

// An object that answers the client's request of this number: see callHandler.
function answerTo(number) {
  return {
    __proto__: null,
    returned(value) {
      if (value === undefined || value === null) {
        python("answer_null", number);
      } else {
        carried("answer_request", "onRequest returns", value, number);
      }
    },
    failed(error) {
      const isTold = isRequestError(error);
      python("refuse_request", number, isTold ? attempt(() => cut(`${error.message}`, MAX_TEXT), null) : null);
      return isTold;
    },
  };
}

// An object that takes the value of onSuspend: attributes for another process, or nothing.
function handedOver(state) {
  const { told } = state;
  told.returned = null;
  return {
    __proto__: null,
    returned(value) {
      if (value === undefined || value === null) {
        return;
      }
      if (typeof value !== "object" || isArray(value)) {
        throw new ERRORS.TypeError(`onSuspend returns an object with attributes, or nothing, not ${kindOf(value)}`);
      }
      checkJson("what onSuspend returned", value, 0);
      told.returned = quote(value);
    },
    failed: () => false,
  };
}

// The attributes of a session, or the value that onSuspend returned, as JSON. Throws a TypeError for a value that JSON
// would change.
function attributesInJson({ attributes, returned }) {
  if (returned !== null) {
    return returned;
  }
  const texts = arrayOf();
  attributes?.forEach((value, key) => {
    if (value !== undefined) {
      checkJson(`the attribute ${quote(upTo(key, 40))}`, value, 0);
      append(texts, `${quote(key)}:${quote(value)}`);
    }
  });
  return `{${apply(joinTexts, texts, [","])}}`;
}

// Throws a TypeError for a value that JSON would change.
function checkJson(what, value, depth) {
  if (typeof value === "string" || typeof value === "boolean" || value === null || isFinite(value)) {
    return;
  }
  if (depth > MAX_ATTRIBUTE_LEVELS) {
    throw new ERRORS.TypeError(`${what} has more than ${MAX_ATTRIBUTE_LEVELS} levels; is there a cycle?`);
  }
  if (isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      checkJson(what, value[index], depth + 1);
    }
    return;
  }
  const prototype = typeof value === "object" ? getPrototypeOf(value) : undefined;
  if (prototype !== null && prototype !== OBJECT) {
    throw new ERRORS.TypeError(`${what} is not JSON: it has ${kindOf(value)}`);
  }
  const names = keysOf(value);
  for (let index = 0; index < names.length; index++) {
    const each = value[names[index]];
    if (each !== undefined) {
      checkJson(what, each, depth + 1);
    }
  }
}
