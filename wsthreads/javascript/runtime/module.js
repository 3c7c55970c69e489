// The exports of "wsthreads" for scripts: handles that need no session, and the sessions.
//
// The functions are frozen, because all files of a script get the same object.

let handleOfUser, handleOfPeer;

class User {
  #name;

  static {
    handleOfUser = (value) => #name in value ? ["user", value.#name] : null;
  }

  constructor(name) {
    this.#name = name;
    defineProperty(this, "name", { __proto__: null, value: name, enumerable: true });
    freeze(this);
  }

  send(message, options) {
    carried("send_to_user", "user.send takes", message, this.#name, latestOf("user.send", options));
  }

  close(code = 1000, reason = "", options = undefined) {
    checkClose(code, reason);
    const banS = optionsOf("user.close", options, CLOSE_OPTIONS).banS ?? 0;
    if (typeof banS !== "number" || !(banS >= 0 && banS <= MAX_BAN_S)) {
      const kind = typeof banS === "number" ? ERRORS.RangeError : ERRORS.TypeError;
      throw new kind(`banS must be a number of seconds from 0 to ${MAX_BAN_S}, not ${upTo(inspect(banS), 40)}`);
    }
    answered(python("close_user", this.#name, code, reason, banS));
  }

  isOnline() {
    return answered(python("is_online", this.#name));
  }

  sessions() {
    return answered(python("sessions_of", this.#name));
  }
}

class Peer {
  #id;

  static {
    handleOfPeer = (value) => #id in value ? ["peer", value.#id] : null;
  }

  constructor(id) {
    this.#id = id;
    defineProperty(this, "id", { __proto__: null, value: id, enumerable: true });
    freeze(this);
  }

  send(message, options) {
    return carried("send_to_peer", "session.send takes", message, this.#id, latestOf("session.send", options));
  }

  close(code = 1000, reason = "") {
    checkClose(code, reason);
    answered(python("close_peer", this.#id, code, reason));
  }

  isOpen() {
    return answered(python("is_peer_open", this.#id));
  }
}

freezeClasses(User, Peer);

// The script's settings, as names and values. Neither the console nor an error shows the values.
const ENV = { __proto__: null };
for (const [name, value] of Object.entries(GIVEN_ENV)) {
  defineProperty(ENV, name, { __proto__: null, value, enumerable: true });
}
freeze(ENV);

const module = {
  __proto__: null,

  env: ENV,

  RequestError,
  RequestTimeout,
  SessionClosed,
  SessionMoved,

  room: freeze((name) => new Room(null, checkedText("a room name", name, MAX_ROOM_NAME_CHARS))),

  user: freeze((name) => new User(checkedText("the name of a user", name, MAX_USER_CHARS))),

  session: freeze((id) => new Peer(checkedText("a session id", id, MAX_ID_CHARS))),

  // The session objects, the oldest first. A session whose onClose was called is left out.
  sessions: freeze(() => {
    const found = [];
    states.forEach(({ session }) => {
      if (session !== null) {
        append(found, session);
      }
    });
    return found;
  }),
};
