// The rooms that a script receives are handles. A handle has its room's name and its owner `id`: the id of a session,
// null without one, or the fencing number of an ownership. Python looks up the rest at each call.

// Tells Python which room an object is; null for other objects.
let handleOfRoom;

class Room {
  #id;
  #name;

  static {
    handleOfRoom = (value) => #id in value ? ["room", value.#id, value.#name] : null;
  }

  constructor(id, name) {
    this.#id = id;
    this.#name = name;
    if (new.target === Room) {
      freeze(this);
    }
  }

  broadcast(message, options) {
    broadcast("broadcast", "room.broadcast", message, options, this.#id, this.#name);
  }

  members() {
    return answered(python("members", this.#id, this.#name));
  }

  presence() {
    return answered(python("presence", this.#id, this.#name));
  }

  close(code = 1000, reason = "") {
    checkClose(code, reason);
    answered(python("close_room", this.#id, this.#name, code, reason));
  }

  getName() {
    return this.#name;
  }

  history(count) {
    return messagesOf(answered(python("history", this.#id, this.#name, checkedHistory(count))));
  }

  position() {
    return answered(python("position", this.#id, this.#name));
  }

  setAttribute(key, value) {
    const text = jsonOf("an attribute of a room", value);
    answered(python("set_attribute", this.#id, this.#name, freeKey(this.#name, key), text));
  }

  getAttribute(key) {
    const text = answered(python("get_attribute", this.#id, this.#name, checkedKey(key)));
    return text === undefined ? null : parsed(text);
  }

  getAttributes() {
    return parsed(answered(python("attributes", this.#id, this.#name)));
  }

  // `change` runs again if the value has changed in the meantime.
  updateAttribute(key, change) {
    const name = freeKey(this.#name, key);
    if (typeof change !== "function") {
      throw new ERRORS.TypeError(`room.updateAttribute takes a function, not ${kindOf(change)}`);
    }
    let before = answered(python("attribute_text", this.#id, this.#name, name));
    for (let attempt = 1; ; attempt++) {
      const given = typeof before === "string" ? parsed(before) : undefined;
      const updated = updatedIn(this.#name, name);
      updating.set(updated, true);
      let value;
      try {
        value = change(given);
      } finally {
        updating.delete(updated);
      }
      if (isThenable(value)) {
        throw new ERRORS.TypeError("the function of room.updateAttribute must return the new value, not a promise");
      }
      const after = jsonOf("an attribute of a room", value);
      const answer = answered(python("swap_attribute", this.#id, this.#name, name, before ?? null, after, attempt));
      if (answer[0]) {
        return parsed(after);
      }
      before = answer[1];
    }
  }

  deleteAttribute(key) {
    return answered(python("delete_attribute", this.#id, this.#name, freeKey(this.#name, key)));
  }

  post(value) {
    let text;
    try {
      text = jsonOf("a posted value", value);
    } catch (error) {  // a function that returns a promise does not throw
      return new ThePromise((_, reject) => reject(error));
    }
    return posted(this.#id, this.#name, text);
  }
}

class SessionRoom extends Room {
  #id;
  #name;

  constructor(id, name) {
    super(id, name);
    this.#id = id;
    this.#name = name;
    freeze(this);
  }

  join(options) {
    const given = optionsOf("room.join", options, JOIN_OPTIONS);
    const history = ifGiven(given.history, checkedHistory);
    const since = ifGiven(given.since, checkedPosition);
    const most = ifGiven(given.maxMembers, checkedMaxMembers);
    const presence = given.presence === undefined ? undefined : jsonOf("a presence value", given.presence);
    const answer = answered(python("join", this.#id, this.#name, presence, history, since, most));
    toldOfEnd("join", answer !== false);
    return { joined: answer !== false && answer[0], complete: answer !== false && answer[1] };
  }

  setPresence(value) {
    const text = jsonOf("a presence value", value);
    toldOfEnd("setPresence", answered(python("set_presence", this.#id, this.#name, text)));
  }

  leave() {
    toldOfEnd("leave", answered(python("leave", this.#id, this.#name)));
  }

  broadcastExcept(message, options) {
    broadcast("broadcast_except", "room.broadcastExcept", message, options, this.#id, this.#name);
  }
}

// The room that onTick, onPost, onRoomStart and onRoomEnd receive.
class OwnedRoom extends Room {
  #name;

  constructor(fencingNumber, name) {
    super(fencingNumber, name);
    this.#name = name;
    defineProperty(this, "fencingNumber", { __proto__: null, value: fencingNumber, enumerable: true });
    freeze(this);
  }

  isOwner() {
    return answered(python("is_owner", this.fencingNumber, this.#name));
  }
}

freezeClasses(Room, SessionRoom, OwnedRoom);

// The attributes whose updates call a function now. If a call is stopped at its deadline, no `finally` runs, so the
// loop clears this for each event.
let updating = newMap();
const updatedIn = (room, key) => `${room.length} ${room}${key}`;

// Checks that an attribute is not being updated, and returns its key. Otherwise an update would repeat forever, because
// the value always changes.
function freeKey(room, key) {
  if (updating.has(updatedIn(room, checkedKey(key)))) {
    throw new ERRORS.Error(
      `the function of an update must return the new value of ${quote(upTo(key, 80))}, and must not set it itself`);
  }
  return key;
}

function broadcast(name, caller, message, options, id, room) {
  if (options === undefined) {
    carried(name, `${caller} takes`, message, id, room);
    return;
  }
  const given = optionsOf(caller, options, BROADCAST_OPTIONS);
  const keep = ifGiven(given.keep, checkedKeep);
  carried(name, `${caller} takes`, message, id, room, keep, ifGiven(given.latest, checkedLatest));
}

// Messages in the form that Python passes: texts, sizes of messages that follow each other in the parcel, or bytes as a
// text in an array.
function messagesOf(entries) {
  const { bytes } = parcel;
  parcel.bytes = null;
  let start = 0;
  for (let index = 0; index < entries.length; index++) {
    const entry = entries[index];
    if (typeof entry === "number") {
      entries[index] = bufferOfView(copyOf(new Bytes(bytes, start, entry)));
      start += entry;
    } else if (typeof entry === "object") {
      entries[index] = receivedBytes(entry[0]);
    }
  }
  return entries;
}

// Logs, once for a script, that a method did nothing because the session of its room handle has ended.
function toldOfEnd(method, hadEffect) {
  if (!hadEffect && warnedOf.end !== true) {
    warnedOf.end = true;
    python("console", 30, wire(`room.${method}() does nothing: the session of this room handle has ended`), callStack());
  }
}

// Posts whose outcome is not known yet, by number.
const posts = newMap();
let lastPost = 0;

// The promise of a post. Its error is made now, because only now does the stack show the script's line.
function posted(id, room, text) {
  const error = new ERRORS.Error("");
  setHidden(error, "name", "PostError");
  return new ThePromise((resolve, reject) => {
    const number = ++lastPost;
    posts.set(number, { __proto__: null, resolve, reject, error });
    try {
      answered(python("post", id, room, text, number));
    } catch (refusal) {
      settlePost(number, refusal.message, false);
    }
  });
}

function setHidden(object, name, value) {
  defineProperty(object, name, { __proto__: null, value, writable: true, configurable: true, enumerable: false });
}

// `message` is the reason of a failure, or undefined. With `isUnknown` the post may have been handled anyway.
function settlePost(number, message, isUnknown) {
  const post = posts.get(number);
  if (post === undefined) {
    return;
  }
  posts.delete(number);
  if (typeof message === "string") {
    setHidden(post.error, "message", message);
    setHidden(post.error, "isUnknown", isUnknown);
    post.reject(post.error);
  } else {
    post.resolve();
  }
}
