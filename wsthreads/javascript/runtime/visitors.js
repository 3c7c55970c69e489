// The objects that a script is given: the request of a handshake, the session, the room.
//
// All are frozen. What a session was told in its handshake is kept here, so that looking it up does not cross over to
// Python. After onClose a session can still be called: it is closed and in no room, and does not join one. Its handles
// on rooms still reach the members.

class Visitor {
  #told;

  constructor({ told }) {  // not the visit, which holds its session: what is no cycle goes without a collection
    this.#told = told;
  }

  getParameter(name) {
    return looked(this.#told.handshake.parameters, name);
  }

  getHeader(name) {
    return looked(this.#told.handshake.headers, String(name).toLowerCase());
  }

  getRequestPath() {
    return this.#told.handshake.path;
  }

  getRemoteAddr() {
    return this.#told.handshake.address;
  }

  setAttribute(key, value) {
    const told = this.#told;
    const name = `${key}`;
    told.attributes ??= new Map();
    told.attributes.set(name, value);
  }

  getAttribute(key) {
    return this.#told.attributes?.get(`${key}`) ?? null;
  }

  getAttributes() {
    const { attributes } = this.#told;
    return attributes === null ? {} : Object.fromEntries(attributes);
  }
}

class Request extends Visitor {
  #subprotocols;

  constructor(visit) {
    super(visit);
    this.#subprotocols = visit.told.handshake.subprotocols;
    Object.freeze(this);
  }

  getSubprotocols() {
    return [...this.#subprotocols];
  }
}

class Session extends Visitor {
  #id;  // that of this object, whatever a function is called on

  constructor(visit) {
    super(visit);
    this.#id = visit.id;
    Object.defineProperty(this, "id", { value: visit.id, enumerable: true });
    Object.freeze(this);
  }

  send(message) {
    return carried("send", "session.send", message, this.#id);
  }

  close(code = 1000, reason = "") {
    if (typeof code !== "number" || !Number.isInteger(code)) {
      throw new TypeError(`a close code is a whole number such as 1000 or 4000, not ${inspect(code)}`);
    }
    if (typeof reason !== "string") {
      throw new TypeError(`a close reason is a string, not ${kindOf(reason)}`);
    }
    answered(python("close", this.#id, code, reason));
  }

  isOpen() {
    return answered(python("is_open", this.#id));
  }

  room(name) {
    if (typeof name !== "string") {
      throw new TypeError(`a room name is a string, not ${kindOf(name)}`);
    }
    const size = charactersOf(name);
    if (size < 1 || size > MAX_ROOM_NAME_CHARS) {
      throw new RangeError(
        `a room name has 1 to ${MAX_ROOM_NAME_CHARS} characters, not ${size}: ${quote(name.slice(0, 40))}`);
    }
    return new Room(this.#id, name);
  }

  rooms() {
    return answered(python("rooms", this.#id));
  }
}

class Room {
  #id;
  #name;

  constructor(id, name) {
    this.#id = id;
    this.#name = name;
    Object.freeze(this);
  }

  join() {
    answered(python("join", this.#id, this.#name));
  }

  leave() {
    answered(python("leave", this.#id, this.#name));
  }

  broadcast(message) {
    carried("broadcast", "room.broadcast", message, this.#id, this.#name);
  }

  broadcastExcept(message) {
    carried("broadcast_except", "room.broadcastExcept", message, this.#id, this.#name);
  }

  members() {
    return answered(python("members", this.#id, this.#name));
  }

  getName() {
    return this.#name;
  }
}

for (const { prototype } of [Visitor, Request, Session, Room]) {
  Object.freeze(prototype);
}

// The length of a room's name; one that is plainly too long is not gone through, since it may have come from a client.
function charactersOf(name) {
  const { length } = name;
  return length <= MAX_ROOM_NAME_CHARS || length > 2 * MAX_ROOM_NAME_CHARS ? length : [...name].length;
}

function looked(table, name) {
  return Object.hasOwn(table, name) ? table[name] : null;
}

// Hands a message to the Python function `effect`: text as it is, long text and bytes in the parcel.
function carried(effect, caller, message, ...target) {
  if (typeof message === "string") {
    if (!parcelsText || message.length < LONG_TEXT) {
      return answered(python(effect, message, false, ...target));
    }
    parcel.text = message;
    const answer = python(effect, null, false, ...target);
    parcel.text = null;
    return answered(answer);
  }
  const bytes = bytesOf(message);
  if (bytes === null) {
    throw new TypeError(
      `${caller} takes a string, an ArrayBuffer or a typed array, not ${kindOf(message)}; try JSON.stringify`);
  }
  if (!HAS_ENGINE) {
    return answered(python(effect, textOfBytes(bytes), true, ...target));
  }
  parcel.bytes = bytes.slice().buffer;
  const answer = python(effect, null, true, ...target);
  parcel.bytes = null;
  return answered(answer);
}

function bytesOf(message) {
  if (ArrayBuffer.isView(message)) {
    return new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
  }
  return message instanceof ArrayBuffer || message instanceof SharedArrayBuffer ? new Uint8Array(message) : null;
}

function textOfBytes(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += apply(fromCharCode, null, bytes.subarray(start, start + 8192));
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
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) {
    bytes[index] = text.charCodeAt(index);
  }
  return bytes.buffer;
}

// "a number", "null", "an Array": for messages that name the type seen.
function kindOf(value) {
  if (value === null || value === undefined) {
    return String(value);
  }
  const name = typeof value === "object" ? attempt(() => value.constructor.name, "") || "object" : typeof value;
  return `${/^[aeiou]/i.test(name) ? "an" : "a"} ${name}`;
}
