// The objects that a script receives: the request of a handshake, the session.
//
// All are frozen. The data of the handshake (`told`) is kept here, so that looking it up needs no call to Python. After
// onClose a session can still be used: it is closed, is in no room, and cannot join one. Its room handles still reach
// the members, like the handles without a session that `module` makes.

const bufferOfData = asGetter(DataView.prototype, "buffer");
const startOfData = asGetter(DataView.prototype, "byteOffset");
const bytesOfData = asGetter(DataView.prototype, "byteLength");
const setBytes = asFunction(TYPED_ARRAY.set);

// Tells Python which session an object is; null for other objects.
let handleOfSession;

class Visitor {
  #told;

  constructor({ told }) {  // not `state`, which refers to the session: a cycle would need garbage collection
    this.#told = told;
  }

  getParameter(name) {
    return looked(this.#told.handshake.parameters, name);
  }

  getHeader(name) {
    return looked(this.#told.handshake.headers, inLowerCase(toText(name)));
  }

  getRequestPath() {
    return this.#told.handshake.path;
  }

  getPathParameter(name) {
    const values = this.#told.handshake.pathParameters;
    return values === undefined ? null : looked(values, name);
  }

  getRemoteAddr() {
    return this.#told.handshake.address;
  }

  setAttribute(key, value) {
    const told = this.#told;
    const name = `${key}`;
    told.attributes ??= newMap();
    told.attributes.set(name, value);
  }

  getAttribute(key) {
    return this.#told.attributes?.get(`${key}`) ?? null;
  }

  getAttributes() {
    const copy = {};
    this.#told.attributes?.forEach((value, key) => {
      defineProperty(copy, key, { __proto__: null, value, writable: true, configurable: true, enumerable: true });
    });
    return copy;
  }
}

class Request extends Visitor {
  #id;
  #subprotocols;

  constructor(state) {
    super(state);
    this.#id = state.id;
    this.#subprotocols = state.told.handshake.subprotocols;
    freeze(this);
  }

  setUser(name) {
    answered(python("set_user", this.#id, name === null ? null : checkedText("the name of a user", name, MAX_USER_CHARS)));
  }

  setExpiry(unixSeconds) {
    answered(python("set_request_expiry", this.#id, checkedTime(unixSeconds)));
  }

  getSubprotocols() {
    const copy = [];
    for (let index = 0; index < this.#subprotocols.length; index++) {
      append(copy, this.#subprotocols[index]);
    }
    return copy;
  }
}

class Session extends Visitor {
  #id;  // the id of this object, even if a method is called on another object

  static {
    handleOfSession = (value) => #id in value ? ["session", value.#id] : null;
  }

  constructor(state) {
    super(state);
    this.#id = state.id;
    defineProperty(this, "id", { __proto__: null, value: state.id, enumerable: true });
    defineProperty(this, "user", { __proto__: null, value: state.told.handshake.user, enumerable: true });
    freeze(this);
  }

  send(message, options) {
    if (typeof message === "string" && options === undefined && !parcelsText) {  // nearly always
      return answered(python("send", message, false, this.#id));
    }
    const latest = options === undefined ? undefined : latestOf("session.send", options);
    return carried("send", "session.send takes", message, this.#id, latest);
  }

  close(code = 1000, reason = "") {
    checkClose(code, reason);
    answered(python("close", this.#id, code, reason));
  }

  setExpiry(unixSeconds) {
    answered(python("set_expiry", this.#id, checkedTime(unixSeconds)));
  }

  // Returns a promise of the answer. The client must speak wsthreads.1.
  request(message, options) {
    return requested(this.#id, message, options);
  }

  isOpen() {
    return answered(python("is_open", this.#id));
  }

  isConnected() {
    return answered(python("is_connected", this.#id));
  }

  room(name) {
    return new SessionRoom(this.#id, checkedText("a room name", name, MAX_ROOM_NAME_CHARS));
  }

  rooms() {
    return answered(python("rooms", this.#id));
  }
}

// Replaces `constructor`. A script that reached the class there could change `instanceof`, or make an object whose name
// was not checked.
function freezeClasses(...classes) {
  for (let index = 0; index < classes.length; index++) {
    const { name, prototype } = classes[index];
    const constructor = function () {
      throw new ERRORS.TypeError(`${name} has no constructor: handlers receive such objects, and functions return them`);
    };
    defineProperty(constructor, "name", { __proto__: null, value: name });
    defineProperty(constructor, "prototype", { __proto__: null, value: prototype });
    defineProperty(prototype, "constructor", { __proto__: null, value: freeze(constructor), configurable: false });
    freeze(prototype);
    freeze(classes[index]);
  }
}

freezeClasses(Visitor, Request, Session);

function checkClose(code, reason) {
  if (typeof code !== "number" || !isInteger(code)) {
    throw new ERRORS.TypeError(`a close code is a whole number such as 1000 or 4000, not ${inspect(code)}`);
  }
  if (typeof reason !== "string") {
    throw new ERRORS.TypeError(`a close reason is a string, not ${kindOf(reason)}`);
  }
}

// Returns `text` if it is a string of 1 to `limit` characters. `what` describes it: "a room name".
function checkedText(what, text, limit) {
  if (typeof text !== "string") {
    throw new ERRORS.TypeError(`${what} is a string, not ${kindOf(text)}`);
  }
  const { length } = text;
  if (length >= 1 && length <= limit) {
    return text;
  }
  const isHuge = length > 4 * limit;  // it may come from a client: not scanned
  const size = isHuge ? trunc(length / 2) : charactersOf(text);
  if (size < 1 || size > limit) {
    const given = isHuge ? `${size} or more` : size;
    throw new ERRORS.RangeError(`${what} has 1 to ${limit} characters, not ${given}: ${quote(upTo(text, 40))}`);
  }
  return text;
}

// The number of characters of a text, as Python counts them.
function charactersOf(name) {
  const { length } = name;
  let count = 0;
  for (let index = 0; index < length; index++) {
    count++;
    if (isSurrogate(name, index, 0xD800) && index + 1 < length && isSurrogate(name, index + 1, 0xDC00)) {
      index++;
    }
  }
  return count;
}

function isSurrogate(text, index, first) {
  return (codeAt(text, index) & 0xFC00) === first;
}

function checkedTime(unixSeconds) {
  if (typeof unixSeconds !== "number") {
    throw new ERRORS.TypeError(
      `an expiry is a number of seconds since the epoch, as in Date.now() / 1000 + 60, not ${inspect(unixSeconds)}`);
  }
  if (!isFinite(unixSeconds)) {
    throw new ERRORS.RangeError(`an expiry is a finite number of seconds since the epoch, not ${unixSeconds}`);
  }
  return unixSeconds;
}

function looked(table, name) {
  return hasOwn(table, name) ? table[name] : null;
}

// The option `latest`. Methods that send have no other option.
function latestOf(caller, options) {
  return options === undefined ? undefined : ifGiven(optionsOf(caller, options, SEND_OPTIONS).latest, checkedLatest);
}

// Passes a message to the host function `name`: short text directly, long text and bytes in the parcel. The last three
// arguments may be undefined.
function carried(name, caller, message, id, second, keep, latest) {
  if (typeof message === "string") {
    if (!parcelsText || message.length < LONG_TEXT) {
      return answered(handed(name, message, false, id, second, keep, latest));
    }
    parcel.text = message;
    const answer = handed(name, null, false, id, second, keep, latest);
    parcel.text = null;
    return answered(answer);
  }
  const bytes = bytesOf(message);
  if (bytes === null) {
    throw new ERRORS.TypeError(
      `${caller} a string, an ArrayBuffer or a typed array, not ${kindOf(message)}; try JSON.stringify`);
  }
  if (!HAS_ENGINE) {
    return answered(handed(name, textOfBytes(bytes), true, id, second, keep, latest));
  }
  parcel.bytes = bufferOfView(bytes);
  const answer = handed(name, null, true, id, second, keep, latest);
  parcel.bytes = null;
  return answered(answer);
}

function handed(name, message, isBinary, id, second, keep, latest) {
  if (keep !== undefined || latest !== undefined) {
    return python(name, message, isBinary, id, second, keep, latest);
  }
  return second === undefined ? python(name, message, isBinary, id) : python(name, message, isBinary, id, second);
}

// A copy of the bytes of a buffer or a view; null for any other value.
function bytesOf(message) {
  if (typeof message !== "object" || message === null) {
    return null;
  }
  if (!isView(message)) {
    const size = attempt(() => bytesOfBuffer(message), attempt(() => bytesOfSharedBuffer(message), -1));
    return size < 0 ? null : copyOf(new Bytes(message));
  }
  const isTyped = kindOfView(message) !== undefined;
  const buffer = isTyped ? bufferOfView(message) : bufferOfData(message);
  const start = isTyped ? startOfView(message) : startOfData(message);
  return copyOf(new Bytes(buffer, start, isTyped ? bytesOfView(message) : bytesOfData(message)));
}

function copyOf(bytes) {
  const copy = new Bytes(lengthOfView(bytes));
  setBytes(copy, bytes);
  return copy;
}

function textOfBytes(bytes) {
  const length = lengthOfView(bytes);
  let text = "";
  for (let start = 0; start < length; start += 8192) {
    const size = length - start < 8192 ? length - start : 8192;
    text += apply(fromCharCode, null, new Bytes(bufferOfView(bytes), start, size));
  }
  return text;
}

function receivedText() {
  const { text } = parcel;
  parcel.text = null;
  return text;
}

function receivedBytes(text) {
  if (text === null) {
    const { bytes } = parcel;
    parcel.bytes = null;
    return bytes;
  }
  const bytes = new Bytes(text.length);
  for (let index = 0; index < text.length; index++) {
    bytes[index] = codeAt(text, index);
  }
  return bufferOfView(bytes);
}

// "a number", "null", "an Array": for error messages.
function kindOf(value) {
  if (value === null || value === undefined) {
    return `${value}`;
  }
  const name = typeof value === "object" ? attempt(() => `${value.constructor.name}`, "") || "object" : typeof value;
  switch (inLowerCase(upTo(name, 1))) {
    case "a": case "e": case "i": case "o": case "u": return `an ${name}`;
    default: return `a ${name}`;
  }
}
