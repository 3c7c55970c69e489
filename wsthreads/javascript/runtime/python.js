// The functions of imported Python files. A Python thread makes the call; its result arrives as an event.
//
// Values travel as JSON. A special value is one that JSON does not have: bytes, or a handle on a session, a room or a
// user. In arguments, an object with its number under the key SPECIAL takes its place in the JSON, and a second list
// has the values.

const SPECIAL = "\0";
const MAX_LEVELS = 200;
const MAX_SAFE = 2 ** 53 - 1;
const MAX_ARGUMENT_CHARS = 4 * 1024 * 1024;  // more takes too long: bytes are copied one by one
const PIECE_CHARS = 4096;

// Calls that wait for a result, by ticket.
const waiting = newMap();

// The export for a Python function, by the function's number.
function imported(number, name, isGenerator) {
  const call = isGenerator ? (...args) => iterated(number, name, args) : (...args) => called(number, name, args);
  defineProperty(call, "name", { __proto__: null, value: name });
  return freeze(call);
}

function called(number, name, args) {
  let sent;
  try {
    sent = inPython(name, args);
  } catch (error) {  // as in any async function
    return new ThePromise((_, reject) => reject(error));
  }
  return asked((ticket) => sent.specials === null ? python("call_function", ticket, number, sent.text) :
    python("call_function", ticket, number, sent.text, `[${apply(joinTexts, sent.specials, [","])}]`));
}

// A promise for the result of a call. `ask` begins the call.
function asked(ask) {
  const ticket = ++lastTicket;
  const stack = callStack();
  return new ThePromise((resolve, reject) => {
    waiting.set(ticket, { __proto__: null, resolve, reject, stack, owner });
    let refusal;
    try {
      refusal = answered(ask(ticket));
    } catch (error) {
      waiting.delete(ticket);
      throw error;
    }
    if (refusal !== undefined) {
      waiting.delete(ticket);
      reject(new ERRORS.Error(refusal));
    }
  });
}

// The event of a result: the value, or an exception's class, text and frames. An object with `key`, a random text,
// stands for bytes. `bytes` has all bytes one after the other, and `sizes` their sizes.
function returned(ticket, isValue, value, key, sizes, bytes) {
  const call = waiting.get(ticket);
  if (call === undefined) {
    return DONE;
  }
  owner = call.owner;
  isInJob = true;
  if (isValue) {
    let result;
    try {
      result = sizes.length === 0 ? value : fromPython(value, key, viewsOf(receivedBytes(bytes), sizes));
    } catch (error) {
      waiting.delete(ticket);
      call.reject(error);
      return DONE;
    }
    waiting.delete(ticket);
    call.resolve(result);
  } else {
    waiting.delete(ticket);
    call.reject(errorOf(value, call.stack));
  }
  return DONE;
}

function viewsOf(buffer, sizes) {
  const views = arrayOf();
  let start = 0;
  for (let index = 0; index < sizes.length; index++) {
    append(views, sizes.length === 1 ? new Bytes(buffer) : copyOf(new Bytes(buffer, start, sizes[index])));
    start += sizes[index];
  }
  return views;
}

// `told` has the name of the error's class, its text and its frames. It may have its cause and the errors in it, in the
// same form.
function errorOf(told, stack) {
  const name = told[0], frames = told[2];
  const error = new ERRORS[hasOwn(ERRORS, name) ? name : "Error"](told[1]);
  const hide = (property, value) => defineProperty(error, property, { __proto__: null, value, writable: true, configurable: true });
  hide("name", name);
  hide("stack", frames === "" || stack === "" ? `${frames}${stack}` : `${frames}\n${stack}`);
  if (told.length > 3) {
    if (told[3] !== null) {
      hide("cause", errorOf(told[3], ""));
    }
    const errors = told[4];
    for (let index = 0; index < errors.length; index++) {
      errors[index] = errorOf(errors[index], "");
    }
    if (errors.length > 0) {
      hide("errors", errors);
    }
  }
  return error;
}

// An async iterator over a Python generator. Its calls are made one after the other, in their order. Only its methods
// refer to `held`: once nothing refers to the methods, the generator is ended after the calls that were made.
function iterated(number, name, args) {
  let last = called(number, name, args);  // the promise of the last call
  const generator = last;  // the promise of the generator's number
  const state = { __proto__: null, opened: 0, steps: 1, hasEnded: false, isDropped: false };
  const settled = () => {
    state.steps--;
    endDropped(state);
  };
  const next = (kind) => {
    const before = last;
    state.steps++;
    const step = new ThePromise((resolve, reject) => {
      const go = () => when(generator, (opened) => {
        if (state.hasEnded) {
          resolve({ value: undefined, done: true });
          return;
        }
        state.hasEnded = kind === "end_of";
        when(asked((ticket) => python(kind, ticket, opened)), (result) => {
          state.hasEnded = state.hasEnded || result.done;
          resolve(state.hasEnded && kind === "end_of" ? { value: undefined, done: true } : result);
        }, (error) => {
          state.hasEnded = true;
          python("drop_generator", opened);  // it may still be open: after a timeout, or an error on this side
          reject(error);
        });
      }, (error) => {  // it was not opened: the first step reports this
        if (state.hasEnded || kind === "end_of") {
          resolve({ value: undefined, done: true });
        } else {
          state.hasEnded = true;
          reject(error);
        }
      });
      when(before, go, go);
    });
    last = step;
    when(step, settled, settled);  // the caller gets the error
    return step;
  };
  when(generator, (opened) => {
    state.opened = opened;
    settled();
  }, settled);
  const held = {};
  const iterator = freeze({
    next: () => (held, next("next_of")),
    return: (value) => new ThePromise((resolve, reject) =>
      when((held, next("end_of")), () => resolve({ value, done: true }), reject)),
    [ASYNC_ITERATOR]() {
      return this;
    },
  });
  iterators ??= newRegistry((dropped) => {
    dropped.isDropped = true;
    endDropped(dropped);
  });
  iterators.register(held, state);
  return iterator;
}

let iterators = null;  // made for a script's first iterator

function endDropped(state) {
  if (state.isDropped && state.steps === 0 && state.opened !== 0 && !state.hasEnded) {
    state.hasEnded = true;
    python("drop_generator", state.opened);
  }
}

// The arguments of a call. `text` is their JSON, and `specials` an array of the special values, or null.
function inPython(name, args) {
  const sent = { __proto__: null, text: "[", pieces: null, size: 0, bytes: 0, specials: null, name };
  let { length } = args;
  while (length > 0 && args[length - 1] === undefined) {
    length--;  // as in JavaScript: the parameter has its default
  }
  for (let index = 0; index < length; index++) {
    if (index > 0) {
      add(sent, ",");
    }
    put(sent, args[index], 0);
  }
  add(sent, "]");
  checkSize(sent);
  if (sent.pieces !== null) {
    append(sent.pieces, sent.text);
    sent.text = apply(joinTexts, sent.pieces, [""]);
  }
  return sent;
}

// Adding to a text copies it, so a long text is made of pieces. A large argument is refused before all of it was read.
function add(sent, piece) {
  sent.text += piece;
  if (sent.text.length < PIECE_CHARS) {
    return;
  }
  sent.pieces ??= arrayOf();
  append(sent.pieces, sent.text);
  sent.size += sent.text.length;
  sent.text = "";
  checkSize(sent);
}

function checkSize(sent) {
  if (sent.size + sent.text.length > MAX_ARGUMENT_CHARS) {
    throw new ERRORS.RangeError(`${sent.name} takes at most ${MAX_ARGUMENT_CHARS} characters of JSON: pass it in parts`);
  }
}

function put(sent, value, depth) {
  switch (typeof value) {
    case "string":
      add(sent, quote(value));
      return;
    case "number":
      if (!isFinite(value)) {
        throw new ERRORS.TypeError(`${sent.name} takes JSON values, bytes and handles, not ${value}`);
      }
      if (isInteger(value) && (value > MAX_SAFE || value < -MAX_SAFE)) {
        throw new ERRORS.RangeError(`${value} is beyond the safe integers, ±${MAX_SAFE}: pass it to ${sent.name} as a string`);
      }
      add(sent, `${value}`);
      return;
    case "boolean":
      add(sent, `${value}`);
      return;
    case "undefined":
      add(sent, "null");
      return;
    case "object":
      if (value === null) {
        add(sent, "null");
      } else {
        putObject(sent, value, depth);
      }
      return;
    default:
      throw new ERRORS.TypeError(`${sent.name} takes JSON values, bytes and handles, not ${kindOf(value)}`);
  }
}

function putObject(sent, value, depth) {
  if (depth > MAX_LEVELS) {
    throw new ERRORS.RangeError(`${sent.name} takes values of at most ${MAX_LEVELS} levels; is there a cycle?`);
  }
  const special = specialOf(value, sent);
  if (special !== null) {
    add(sent, `{"\\u0000":${sent.specials === null ? 0 : sent.specials.length}}`);
    sent.specials ??= arrayOf();
    append(sent.specials, special);
    return;
  }
  if (isArray(value)) {
    add(sent, "[");
    const { length } = value;
    for (let index = 0; index < length; index++) {
      if (index > 0) {
        add(sent, ",");
      }
      put(sent, value[index], depth + 1);
    }
    add(sent, "]");
    return;
  }
  const { toJSON } = value;
  if (typeof toJSON === "function") {  // such as a Date's
    put(sent, apply(toJSON, value, [""]), depth + 1);
    return;
  }
  const prototype = getPrototypeOf(value);
  if (prototype !== null && prototype !== OBJECT) {  // JSON would turn most of them into {}
    throw new ERRORS.TypeError(`${sent.name} takes JSON values, bytes and handles, not ${kindOf(value)}`);
  }
  const names = keysOf(value);
  let isFirst = true;
  add(sent, "{");
  for (let index = 0; index < names.length; index++) {
    const each = value[names[index]];
    if (each === undefined || typeof each === "function" || typeof each === "symbol") {
      continue;  // as in JSON
    }
    if (names[index] === SPECIAL) {
      throw new ERRORS.TypeError(`${sent.name} takes no object with the key "\\0"`);
    }
    add(sent, `${isFirst ? "" : ","}${quote(names[index])}:`);
    isFirst = false;
    put(sent, each, depth + 1);
  }
  add(sent, "}");
}

// The JSON to send for bytes or a handle; null for any other object.
function specialOf(value, sent) {
  const bytes = bytesOf(value);
  if (bytes !== null) {
    sent.bytes += lengthOfView(bytes);
    if (sent.bytes > MAX_ARGUMENT_CHARS) {
      throw new ERRORS.RangeError(`${sent.name} takes at most ${MAX_ARGUMENT_CHARS} bytes, not ${sent.bytes}: pass them in parts`);
    }
    return `["bytes",${quote(textOfBytes(bytes))}]`;
  }
  const handle = handleOfSession(value) ?? handleOfRoom(value) ?? handleOfUser(value) ?? handleOfPeer(value);
  if (handle === null) {
    return null;
  }
  let text = `[${quote(handle[0])}`;
  for (let index = 1; index < handle.length; index++) {
    text += `,${quote(handle[index])}`;
  }
  return `${text}]`;
}

function fromPython(value, key, views) {
  if (typeof value !== "object" || value === null) {
    return value;
  }
  if (isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      value[index] = fromPython(value[index], key, views);
    }
    return value;
  }
  if (hasOwn(value, key)) {
    return views[value[key]];
  }
  const names = keysOf(value);
  for (let index = 0; index < names.length; index++) {
    const each = fromPython(value[names[index]], key, views);
    defineProperty(value, names[index], { __proto__: null, value: each });
  }
  return value;
}
