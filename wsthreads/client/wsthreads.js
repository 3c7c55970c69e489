// A WebSocket that reconnects. If the server resumes sessions, no message is lost or duplicated.
//
//   import { ReconnectingWebSocket } from "/wsthreads.js";
//   const socket = new ReconnectingWebSocket("/ws/chat?user=ann");
//   socket.onmessage = ({ data }) => show(data);
//   socket.send("hello");        // queued until there is a connection
//   const answer = await socket.request("time?");
//
// wsthreads.d.ts describes the API for pages. With a server of wsthreads, the client speaks the subprotocol wsthreads.1
// (docs/reference/protocol.rst).

const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3];
const SUBPROTOCOL = "wsthreads.1";
const DLE = "\x10";  // the first character of all messages that are not ordinary ones

// Reconnecting is useless after these codes: the client made a mistake, or is not welcome. Others may be temporary.
const STOP_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003]);

/** Whether reconnecting is useless after this close code. True for the application's own codes, 4000 to 4999. */
export function isFinal(code) {
  return STOP_CODES.has(code) || (code >= 4000 && code <= 4999);
}

const EXPIRED = 3000;  // a fresh token may help, once
const BROKEN = 4002;  // in place of 1002, which pages cannot send
const SUSPEND = 4901;  // in place of 1001: the session waits for this client
// If the server closes with one of these codes instead of a welcome, the session still waits for the client.
const WAITS = new Set([1001, 1005, 1006, 1011, 1012, 1013]);

const RENEW_BEFORE_MS = 30_000;  // how long before a token expires, but not before half of its time
const OVERLAP_MS = 2000;  // the old connection stays this long, until the server's handler has joined its rooms
const LONGEST_TIMER_MS = 2 ** 31 - 1;  // browsers run longer timers at once
const EARLIEST_MS = 1e11;  // an earlier time was probably meant in seconds
const WATCH_MS = 10_000;  // how often the client checks whether the page was suspended
const EVENTS_MS = 100;  // after a pause, how long events that the browser already has may take, such as a final close
const PROBE_MS = 2000;  // the wait for a sign of life, if the session can be resumed
const UNACKNOWLEDGED = 1_024;  // the page acknowledges after this many messages,
const UNACKNOWLEDGED_BYTES = 65_536;  // or this many bytes
const WINDOW_BYTES = 786_432;  // nothing is written while this many are unacknowledged; each message counts
const MESSAGE_BYTES = 100;  // this many more
const ASK_MS = 5000;  // how long a message may be unacknowledged before the client asks the server
const MOST_PATIENCE = 64;
const ATTEMPTS_TO_RESUME = 6;  // afterwards, a server that knew the subprotocol may no longer know it

const DEFAULTS = {
  minDelay: 1000,
  maxDelay: 30_000,
  connectTimeout: 10_000,
  stableAfter: 5000,
  maxAttempts: Infinity,
  maxQueued: 1000,
  maxQueuedBytes: 1024 * 1024,
  maxPause: 90_000,  // longer than the minute by which browsers delay timers of hidden pages
  plain: false,
  isFinal: ({ code }) => isFinal(code),
  // For tests.
  WebSocket: globalThis.WebSocket,
  now: Date.now,
  random: Math.random,
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  clearTimeout: (timer) => clearTimeout(timer),
};

const named = (name) => ({ [name]: class extends Error { name = name; } })[name];
export const RequestError = named("RequestError");
export const RequestTimeout = named("RequestTimeout");
export const SessionClosed = named("SessionClosed");

// The counts of both sides in one session, over all of its connections.
class Session {
  token = null;  // for the next hello
  kept = [];  // sent and not acknowledged; null if the server does not resume sessions
  keptBytes = 0;  // see WINDOW_BYTES
  acknowledged = 0;  // how many of our messages
  received = 0;  // how many of the server's messages
  due = 0;  // messages and bytes of the server since our last acknowledgement
  dueBytes = 0;
  requests = new Map();  // our requests without a reply, by id
  lastId = 0;
  asked = 0;  // how many requests of the server
  // Also the values of the server's welcome: resumeMs, heartbeatMs, timeoutMs, protocol.

  welcome({ token, resumeMs, heartbeatMs, timeoutMs, protocol }) {
    Object.assign(this, { token, resumeMs, protocol, due: 0, dueBytes: 0, timeoutMs: Math.max(timeoutMs, PROBE_MS) });
    this.heartbeatMs = heartbeatMs && Math.max(heartbeatMs, 1000);
    if (token === null) this.kept = null;
  }

  // Take a message of the server. Throws if the server breaks the protocol.
  take(data) {
    const message = decode(data);
    const { kind, id } = message;
    if (kind === "a") {
      this.acknowledge(id);
      return message;
    }
    if (kind === "q" ? id !== ++this.asked : kind && !(id > 0 && id <= this.lastId)) throw new Error("impossible id");
    this.received++;
    this.due++;
    this.dueBytes += data.length ?? data.byteLength;
    return message;
  }

  acknowledge(count) {
    if (this.kept === null) return;
    const more = count - this.acknowledged;
    if (!(more >= 0 && more <= this.kept.length)) throw new Error("impossible count");
    for (const { size } of this.kept.splice(0, more)) this.keptBytes -= size + MESSAGE_BYTES;
    this.acknowledged = count;
  }

  end() {
    this.token = null;
    for (const { reject } of this.requests.values()) reject(new SessionClosed("the session is over"));
  }
}

export class ReconnectingWebSocket extends EventTarget {
  static CONNECTING = CONNECTING;
  static OPEN = OPEN;
  static CLOSING = CLOSING;
  static CLOSED = CLOSED;

  #url;
  #protocols;
  #options;
  #state = CONNECTING;
  #socket = null;  // the connection in use
  #next = null;  // an attempt at the next connection
  #old = null;  // the previous connection, as long as it still receives
  #session = new Session();  // null: a plain WebSocket
  #resumed = false;
  #hasSpoken = false;  // whether the server knows the subprotocol
  #patience = 1;  // see #awaitLife
  #refusals = 0;  // how many times only an attempt without the subprotocol succeeded
  #binaryType = "blob";
  #queue = [];
  #aside = null;  // the queue, during an "open" event
  #queuedBytes = 0;
  #requests = new Set();  // all requests without a reply, including those in the queue
  #attempts = 0;  // since the last stable connection
  #isWaiting = false;  // whether the client waits for the next attempt
  #looks = 0;  // how many more times the client looks for events of a connection that it will replace
  #closing = null;  // the code and the reason of close()
  #timers = {};
  #movedAt = 0;  // when a timer last ran on time
  #heardAt = 0;
  #isHeard = false;
  #expiresAt = Infinity;  // when the current connection's address expires
  #renewAt = Infinity;
  #renewals = 0;  // attempts to renew the current connection
  #hasAskedAgain = false;  // whether the client has asked for a fresh address after EXPIRED, since it was last stable

  constructor(url, protocols = [], options = {}) {
    super();
    if (typeof protocols !== "string" && !Array.isArray(protocols)) throw new TypeError("options are the third argument");
    const unknown = Object.keys(options).find((name) => !Object.hasOwn(DEFAULTS, name));
    if (unknown !== undefined) {
      throw new TypeError(`no such option: ${unknown}; there are: ${Object.keys(DEFAULTS).join(", ")}`);
    }
    this.#url = typeof url === "function" ? url : absolute(url);
    this.#protocols = protocols;
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...DEFAULTS, ...Object.fromEntries(given) };
    this.#watchPage("addEventListener");
    this.#connect();
  }

  get CONNECTING() { return CONNECTING; }
  get OPEN() { return OPEN; }
  get CLOSING() { return CLOSING; }
  get CLOSED() { return CLOSED; }

  /** CONNECTING also between two connections. CLOSED if no connection will follow. */
  get readyState() { return this.#state === OPEN && !this.#isOpen ? CONNECTING : this.#state; }

  // The socket's state changes before its "close" event, which comes a round trip later. Nothing is written to a
  // connection that may be dead: without a session that can be resumed, it would be lost.
  get #isOpen() { return this.#state === OPEN && !this.#looks && this.#socket.readyState === OPEN; }

  get url() { return (this.#socket ?? this.#next?.socket)?.url ?? ""; }
  get protocol() { return (this.#session ?? this.#socket)?.protocol ?? ""; }
  get extensions() { return this.#socket?.extensions ?? ""; }
  get resumed() { return this.#resumed; }

  /** Bytes that wait, in the browser and in the queue for the next connection. */
  get bufferedAmount() {
    const again = this.#isOpen ? [] : this.#session?.kept ?? [];  // what is sent again after a resume
    return again.reduce((sum, { size }) => sum + size, this.#queuedBytes + (this.#socket?.bufferedAmount ?? 0));
  }

  get binaryType() { return this.#binaryType; }
  set binaryType(type) {
    this.#binaryType = type;
    for (const socket of [this.#socket, this.#old?.socket]) if (socket && !this.#session) socket.binaryType = type;
  }

  send(data) {
    if (arguments.length === 0) throw new TypeError("send() takes a message");
    return this.#post({ kind: "", data: messageOf(data) });
  }

  request(data, { timeoutMs = 10_000 } = {}) {
    return new Promise((resolve, reject) => {
      if (!(timeoutMs > 0)) throw new TypeError(`timeoutMs is above 0, not ${timeoutMs}`);
      const request = { kind: "q", data: messageOf(data) };
      const settle = (how) => (value) => {
        this.#options.clearTimeout(timer);
        this.#requests.delete(request);
        request.session?.requests.delete(request.id);
        const index = this.#queue.indexOf(request);
        if (index >= 0) this.#queuedBytes -= this.#queue.splice(index, 1)[0].size;
        how(value);
      };
      request.resolve = settle(resolve);
      request.reject = settle(reject);
      const tooLate = () => request.reject(new RequestTimeout(`no answer within ${timeoutMs} ms`));
      const timer = this.#options.setTimeout(tooLate, Math.min(timeoutMs, LONGEST_TIMER_MS));
      this.#requests.add(request);
      if (this.#state >= CLOSING) request.reject(new SessionClosed("the socket is closed"));
      else if (!this.#post(request)) request.reject(new RequestError("the queue is full"));
    });
  }

  close(code = 1000, reason = "") {
    if (this.#state >= CLOSING) return;
    const [number, text] = [Number(code), `${reason}`];
    checkClose(number, text);
    const wasOpen = this.#state === OPEN;
    this.#state = CLOSING;
    if (wasOpen) {
      this.#dropNext();
      this.#dropOld();
      this.#closing = [number, text];
      this.#flush();
    } else {
      this.#abandon(number, text);
      queueMicrotask(() => this.#end(number, text, false));
    }
  }

  reconnect() {
    if (this.#isWaiting) this.#connect();
  }

  // The page

  #watchPage(method) {
    for (const [type, listener] of Object.entries(this.#pageEvents)) globalThis[method]?.(type, listener);
    globalThis.document?.[method]("visibilitychange", this.#wake);
  }

  #pageEvents = {
    online: () => this.#renew(),
    pageshow: ({ persisted }) => persisted && this.#renew(),
    // A page with an open connection does not get into the browser's cache.
    pagehide: ({ persisted }) => {
      if (persisted && this.#isOpen && this.#session?.token) this.#lost({ code: 1001, reason: "the page was left" });
    },
  };

  #wake = () => {
    if (globalThis.document.hidden) return;
    this.#watch();
    this.reconnect();
    if (this.#isOpen && this.#session) this.#probe(this.#session.token ? PROBE_MS : this.#session.timeoutMs);
  };

  // Replace an open connection, because it may be dead. Or end the wait for the next one.
  #renew() {
    if (this.#looks || this.#state !== OPEN) {
      this.reconnect();
      return;
    }
    this.#looks = PROBE_MS / EVENTS_MS;
    const wait = () => {
      this.#isHeard = false;
      this.#after("away", EVENTS_MS, () => {
        if (this.#state !== OPEN) return;
        if (--this.#looks && (this.#isHeard || this.#socket.readyState !== OPEN)) wait();
        else this.#lost({ code: 1006, reason: "the page was away" }, { delay: 0 });
      });
    };
    wait();
  }

  #watch() {
    if (this.#state !== OPEN) return;
    const { now, maxPause } = this.#options;
    if (now() - this.#movedAt > maxPause) {
      this.#renew();
    } else {
      this.#movedAt = now();
      this.#after("watch", WATCH_MS, () => this.#watch());
    }
  }

  // Connecting

  // Connect: for the first time, again, or with a fresh address while the current connection stays open.
  async #connect(mayOffer = true) {
    if (this.#state >= CLOSING) return;
    const { WebSocket, connectTimeout, plain, now } = this.#options;
    this.#dropNext();
    this.#isWaiting = false;
    this.#options.clearTimeout(this.#timers.retry);
    const offers = mayOffer && !plain && this.#refusals < 2;
    const next = this.#next = { socket: null, mayOffer, expiresAt: Infinity };
    const isWanted = () => next === this.#next;
    const fail = (close, options) => {
      if (!isWanted()) return;
      if (this.#socket === null) {
        this.#lost(close, options);
      } else {
        this.#dropNext();
        this.#after("renew", this.#delayBefore(++this.#renewals), () => this.#connect());
      }
    };
    // Browsers fail a connection if the server knows no subprotocol of the offer.
    // A busy server or proxy may also be the reason. So never give up a session that may still wait.
    const mayWait = () => this.#session?.token && now() - this.#heardAt < this.#session.resumeMs;
    const mayBeForeign = () => offers && !mayWait() && !(this.#hasSpoken && this.#attempts < ATTEMPTS_TO_RESUME);
    // Later, because the constructor has not returned yet, so there are no listeners.
    const failSoon = (error, isFinal) => queueMicrotask(() => fail({ code: 1006, reason: textOf(error) }, { isFinal }));
    this.#after("connect", connectTimeout, () => {
      if (mayBeForeign() && next.socket?.readyState === OPEN) this.#connect(false);  // it says nothing
      fail({ code: 1006, reason: "timeout" });
    });
    let address = this.#url;
    try {
      // If the function throws, the next call may succeed: for example, a proxy's error page made JSON.parse throw.
      if (typeof address === "function") address = await address();
    } catch (error) {
      failSoon(error);
      return;
    }
    if (!isWanted()) return;
    let socket, token;
    try {
      next.expiresAt = expiryOf(address);
      if (this.#socket && next.expiresAt <= this.#expiresAt) throw new Error("no fresh address");  // it gains no time
      const protocols = offers ? [SUBPROTOCOL].concat(this.#protocols) : this.#protocols;
      socket = next.socket = new WebSocket(absolute(address?.url ?? address), protocols);
    } catch (error) {
      // WebSocket refuses the address or a subprotocol, or the expiry is invalid: no attempt can succeed.
      failSoon(error, (error instanceof DOMException && error.name === "SyntaxError") || undefined);
      return;
    }
    socket.onerror = () => isWanted() && !mayBeForeign() && this.#emit(new Event("error"));
    socket.onclose = ({ code, reason, wasClean }) => {
      if (!isWanted()) return;
      if (mayBeForeign() && code === 1006) this.#connect(false);
      else if (token && !WAITS.has(code)) this.#session.end();
      fail({ code, reason, wasClean });
    };
    socket.onopen = () => {
      if (!isWanted()) return;
      if (socket.protocol !== SUBPROTOCOL) {
        this.#adopt(next, null);
        return;
      }
      // From the hello on, messages of the current connection are ignored, because they are not in the count.
      let received;
      ({ token, received } = this.#session ?? {});
      if (token && this.#socket) {
        this.#options.clearTimeout(this.#timers.beat);
        drop(this.#socket, this.#session);
        this.#socket = null;
        this.#state = CONNECTING;
      }
      socket.binaryType = "arraybuffer";
      socket.send(`${DLE}h${JSON.stringify(token ? { resume: { token, received } } : {})}`);
    };
    socket.onmessage = ({ data }) => {
      if (!isWanted()) return;
      let welcome;
      try {
        welcome = welcomeIn(data);
        if (welcome.resumed && !token) throw new Error("nothing to resume");
        if (welcome.resumed) this.#session.acknowledge(welcome.received);
      } catch (error) {
        if (token) this.#session.end();
        socket.close(BROKEN, "protocol error");
        if (mayBeForeign()) this.#connect(false);
        fail({ code: 1002, reason: error.message }, { isFinal: false });
        return;
      }
      this.#adopt(next, welcome);
    };
  }

  // Use this connection. Without a welcome it is a plain WebSocket.
  #adopt({ socket, mayOffer, expiresAt }, welcome) {
    const { now, stableAfter } = this.#options;
    const [before, former] = [this.#socket, this.#session];
    this.#dropOld();
    this.#stopTimers();
    this.#next = null;
    this.#socket = socket;
    this.#resumed = welcome?.resumed ?? false;
    if (welcome) {
      if (!this.#resumed) this.#session = new Session();
      this.#session.welcome(welcome);
      this.#hasSpoken = true;
    } else {
      this.#session = null;
      socket.binaryType = this.#binaryType;
      if (!mayOffer && !this.#hasSpoken) this.#refusals++;
    }
    // The server opens a new session before its handler joins rooms. Meanwhile, the old one receives broadcasts.
    if (before) {
      this.#old = { socket: before, session: former };
      this.#after("old", OVERLAP_MS, () => this.#dropOld());
    } else if (!this.#resumed) {
      former?.end();
    }
    this.#listenTo(socket, this.#session);

    this.#state = OPEN;
    this.#movedAt = this.#heardAt = now();
    this.#watch();
    this.#beat();
    // Later, because the delays must grow if a server accepts and closes at once.
    this.#after("stable", stableAfter, () => { this.#attempts = 0; this.#hasAskedAgain = false; });
    this.#expiresAt = expiresAt;
    const left = expiresAt - now();  // zero or less: this device's clock is wrong, so the server decides
    this.#renewAt = left > 0 ? now() + Math.max(left - RENEW_BEFORE_MS, left / 2) : Infinity;
    this.#renewals = 0;
    this.#renewInTime();

    if (this.#resumed) {
      for (const message of this.#session.kept) socket.send(encode(message));
      this.#askLater();
      this.#emit(new Event("resumed"));
    } else {
      this.#aside = this.#queue;
      this.#queue = [];  // messages of the listeners, such as a login, are sent before the queue
      const lost = former?.kept?.filter(({ kind }) => kind === "").length ?? null;
      this.#emit(Object.assign(new Event("open"), { lost }));
      const waiting = this.#aside;
      this.#aside = null;
      if (this.#state === CLOSED) return;
      this.#queue = this.#queue.concat(waiting);
    }
    this.#flush();
  }

  #renewInTime() {
    const left = this.#renewAt - this.#options.now();
    if (left <= 0) this.#connect();
    else if (left < Infinity) this.#after("renew", left, () => this.#renewInTime());
  }

  // Receiving

  #listenTo(socket, session) {
    const isCurrent = () => socket === this.#socket;
    const isOld = () => socket === this.#old?.socket;
    socket.onerror = () => isCurrent() && this.#emit(new Event("error"));
    socket.onclose = (close) => {
      if (isOld()) this.#dropOld();
      else if (isCurrent()) this.#lost(close);
    };
    socket.onmessage = ({ data, origin }) => {
      if (!isCurrent() && !isOld()) return;
      let message = { kind: "", data };
      try {
        if (session) message = session.take(data);
      } catch (error) {
        session.end();
        socket.close(BROKEN, "protocol error");
        if (isCurrent()) this.#lost({ code: 1002, reason: error.message }, { isFinal: false });
        return;
      }
      if (isCurrent()) {
        this.#heardAt = this.#options.now();
        this.#isHeard = true;
        this.#patience = 1;
        if (message.kind === "a") this.#flush();
        else this.#dropOld();
        if (session?.kept && (session.due >= UNACKNOWLEDGED || session.dueBytes >= UNACKNOWLEDGED_BYTES)) this.#acknowledge("a");
      }
      if (session && this.#binaryType === "blob" && typeof message.data !== "string") message.data = new Blob([message.data]);
      this.#deliver(session, message, origin);
    };
  }

  #deliver(session, { kind, id, data }, origin) {
    const request = session?.requests.get(id);
    if (kind === "") this.#emit(new MessageEvent("message", { data, origin }));
    else if (kind === "q") this.#answer(session, id, data);
    else if (kind === "e") request?.reject(new RequestError(data));
    else if (kind !== "a") request?.resolve(kind === "n" ? null : data);
  }

  async #answer(session, id, data) {
    let answer, reply;
    const event = new MessageEvent("request", { data });
    event.respondWith = (value) => { answer ??= { value }; };
    try {
      this.#emit(event);
      if (!answer) throw new RequestError("no handler: the client has no onrequest");
      const value = await answer.value ?? null;
      reply = value === null ? { kind: "n", data: "" } : { kind: "r", data: messageOf(value) };
    } catch (error) {
      const isMeant = error?.name === "RequestError";
      if (!isMeant) report(error);
      reply = { kind: "e", data: isMeant ? textOf(error) : "failed" };
    }
    this.#post({ ...reply, id, session });
  }

  // Heartbeat and acknowledgements

  #beat() {
    const { heartbeatMs, timeoutMs } = this.#session ?? {};
    if (!heartbeatMs) return;
    const left = this.#heardAt + heartbeatMs - this.#options.now();
    if (left > heartbeatMs) this.#heardAt = this.#options.now();  // the clock was set back
    if (left > 0) this.#after("beat", Math.min(left, heartbeatMs), () => this.#beat());
    else this.#probe(timeoutMs);
  }

  // Send a heartbeat, and replace the connection if there is no answer.
  #probe(timeoutMs) {
    this.#isHeard = false;
    this.#acknowledge("p");
    this.#awaitLife(timeoutMs * this.#patience);
  }

  // A long message on a slow line delays the answer. Progress in sending is visible, progress in receiving is not. So
  // the time to wait doubles with each connection that was replaced in vain.
  #awaitLife(patience) {
    const unsent = this.#socket.bufferedAmount;
    this.#after("beat", patience, () => {
      if (this.#isHeard) {
        this.#beat();
      } else if (this.#socket.bufferedAmount < unsent) {
        this.#awaitLife(patience);
      } else {
        this.#patience = Math.min(2 * this.#patience, MOST_PATIENCE);
        this.#lost({ code: 1006, reason: "no sign of life" }, { delay: 0 });
      }
    });
  }

  #acknowledge(kind) {
    this.#session.due = this.#session.dueBytes = 0;
    this.#socket.send(`${DLE}${kind}${this.#session.received}`);
  }

  // Sending

  #post(message) {
    if (this.#state >= CLOSING) return false;
    const { maxQueued, maxQueuedBytes } = this.#options;
    message.size = sizeOf(message.data);
    const isFull = this.#queue.length >= maxQueued || this.#queuedBytes + message.size > maxQueuedBytes;
    if (isFull && !this.#isOpen && !message.session) return false;  // replies are never refused
    if (message.data instanceof Uint8Array) message.data = message.data.slice();
    this.#queue.push(message);
    this.#queuedBytes += message.size;
    this.#flush();
    return true;
  }

  // Write the queue. Before a close, write all of it, and then close.
  #flush() {
    const isClosing = this.#closing && this.#socket?.readyState === OPEN;
    while (this.#queue.length > 0 && (isClosing || (this.#isOpen && !(this.#session?.keptBytes >= WINDOW_BYTES)))) {
      const message = this.#queue[0];
      if (this.#session && message.data instanceof Blob) {
        message.read ??= this.#read(message);  // later messages wait until it is read
        return;
      }
      this.#queue.shift();
      this.#queuedBytes -= message.size;
      this.#transmit(message);
    }
    if (isClosing && !this.#aside) this.#socket.close(...this.#closing);
  }

  async #read(message) {
    try {
      message.data = new Uint8Array(await message.data.arrayBuffer());
    } catch (error) {
      report(error);
      message.data = null;
    }
    this.#flush();
  }

  #transmit(message) {
    const session = this.#session;
    // The data is not readable, or this answers a request of an earlier session.
    if (message.data === null || message.session && message.session !== session) return;
    if (!session) {
      if (message.kind === "") this.#socket.send(message.data);
      else message.reject(new RequestError("requests need wsthreads.1, which this connection does not use"));
      return;
    }
    if (message.kind === "q") {
      Object.assign(message, { id: ++session.lastId, session });
      session.requests.set(message.id, message);
    }
    this.#socket.send(encode(message));
    if (session.kept) {
      session.kept.push(message);
      session.keptBytes += message.size + MESSAGE_BYTES;
    }
    this.#askLater();
  }

  // Unasked, a server acknowledges only every 64 messages. Messages that it handled long ago must not count as lost.
  #askLater() {
    if (!this.#timers.ask && this.#session?.kept?.length) {
      this.#after("ask", ASK_MS, () => {
        this.#timers.ask = 0;
        if (this.#isOpen && this.#session?.kept?.length) this.#acknowledge("p");
        this.#askLater();
      });
    }
  }

  // Ending

  #lost({ code, reason, wasClean = false }, { isFinal, delay } = {}) {
    const wasMeant = this.#state === CLOSING;
    this.#abandon(...this.#closing ?? []);
    if (!wasMeant) this.#state = CONNECTING;
    const isOver = wasMeant || (isFinal ?? this.#mayNotComeBack({ code, reason, wasClean }));
    if (!wasMeant && this.#state !== CONNECTING) return;  // isFinal has called close()
    if (isOver || this.#attempts >= this.#options.maxAttempts) {
      this.#end(code, reason, wasClean);
      return;
    }
    const attempt = ++this.#attempts;
    delay ??= this.#delayBefore(attempt);
    this.#isWaiting = true;
    this.#after("retry", delay, () => this.#connect());
    this.#emit(new CustomEvent("reconnecting", { detail: { code, reason, attempt, delay } }));
  }

  // The page's isFinal decides; if it throws, the default does.
  #mayNotComeBack(close) {
    if (close.code === EXPIRED && this.#options.isFinal === DEFAULTS.isFinal && typeof this.#url === "function") {
      const hadChance = this.#hasAskedAgain;
      this.#hasAskedAgain = true;
      return hadChance;
    }
    try {
      return Boolean(this.#options.isFinal(close));
    } catch (error) {
      report(error);
      return isFinal(close.code);
    }
  }

  // Doubles up to maxDelay. Random in its upper half, so that many clients do not reconnect at once.
  #delayBefore(attempt) {
    const { minDelay, maxDelay, random } = this.#options;
    const longest = Math.min(maxDelay, minDelay * 2 ** (attempt - 1));
    return longest / 2 + random() * (longest / 2);
  }

  // Drop all connections, and ignore their further events.
  #abandon(code, reason) {
    this.#dropOld();
    this.#dropNext(code, reason);
    drop(this.#socket, this.#session, code, reason);
    this.#socket = null;
    this.#stopTimers();
    this.#isWaiting = false;
    if (!this.#session?.token) this.#session?.end();
  }

  #dropNext(code, reason) {
    const { socket } = this.#next ?? {};
    this.#next = null;
    drop(socket, this.#session, code, reason);
  }

  #dropOld() {
    const { socket, session } = this.#old ?? {};
    this.#old = null;
    drop(socket, null, 1000, "renewed");
    session?.end();
  }

  #end(code, reason, wasClean) {
    this.#state = CLOSED;
    this.#queue = [];
    this.#queuedBytes = 0;
    for (const { reject } of this.#requests) reject(new SessionClosed("the socket is closed"));
    this.#watchPage("removeEventListener");
    this.#emit(new CloseEvent("close", { code, reason, wasClean }));
  }

  #after(name, delay, callback) {
    this.#options.clearTimeout(this.#timers[name]);
    this.#timers[name] = this.#options.setTimeout(callback, Math.min(delay, LONGEST_TIMER_MS));
  }

  #stopTimers() {
    for (const timer of Object.values(this.#timers)) this.#options.clearTimeout(timer);
    this.#timers = {};
    this.#looks = 0;
  }

  #emit(event) {
    this.dispatchEvent(event);
  }

  static {
    Object.defineProperty(this, "name", { value: "ReconnectingWebSocket" });  // even if minified
    // onopen and so on. A replaced listener keeps its place in the order, as in the browser.
    for (const type of ["open", "resumed", "message", "request", "error", "close", "reconnecting"]) {
      const listeners = new WeakMap();
      Object.defineProperty(this.prototype, `on${type}`, {
        configurable: true,
        enumerable: true,
        get() {
          return listeners.get(this) ?? null;
        },
        set(listener) {
          if (!listeners.has(this)) {
            this.addEventListener(type, (event) => {
              const handler = listeners.get(this);
              if (type === "request" && handler) event.respondWith(new Promise((done) => done(handler.call(this, event))));
              else handler?.call(this, event);
            });
          }
          listeners.set(this, typeof listener === "function" ? listener : null);
        },
      });
    }
  }
}

// The messages of the protocol

// Parse a message of the server. The kind is "" for an ordinary message.
function decode(data) {
  const isText = typeof data === "string";
  const head = isText ? data.slice(0, 20) : String.fromCharCode(...new Uint8Array(data.slice(0, 20)));
  if (head[0] !== DLE) return { kind: "", data };
  if (head[1] === DLE) return { kind: "", data: data.slice(1) };
  const [start, kind, digits] = /^\x10(?:([qre])([1-9]\d*):|([an])(0|[1-9]\d*)$)/.exec(head)?.filter((part) => part) ?? [];
  const id = Number(digits);
  if (!Number.isSafeInteger(id) || !(isText || /[qr]/.test(kind))) throw new Error("unknown message");
  return { kind, id, data: data.slice(start.length) };
}

function encode({ kind, id, data }) {
  const isMarked = data[0] === DLE || data[0] === DLE.charCodeAt();
  const head = kind ? `${DLE}${kind}${id}${kind === "n" ? "" : ":"}` : isMarked ? DLE : "";
  if (typeof data === "string") return head + data;
  const bytes = new Uint8Array(head.length + data.length);
  bytes.set(new TextEncoder().encode(head));
  bytes.set(data, head.length);
  return bytes;
}

function welcomeIn(data) {
  if (typeof data !== "string" || !data.startsWith(`${DLE}w`)) throw new Error("no welcome");
  const welcome = JSON.parse(data.slice(2));
  const { resumed, token, received, resumeMs, heartbeatMs, timeoutMs, protocol } = welcome;
  const isRight = [received, resumeMs, heartbeatMs, timeoutMs].every((number) => Number.isSafeInteger(number) && number >= 0)
    && (resumed === true || resumed === false && received === 0)
    && (token === null ? !resumed : typeof token === "string" && /^[!-~]{1,256}$/.test(token))
    && (typeof protocol === "string" || protocol === null);
  if (!isRight) throw new Error("malformed welcome");
  return welcome;
}

// Values of the page

// The absolute ws: or wss: address for an address that may be relative to the page.
function absolute(url) {
  const found = new URL(url, globalThis.location?.href);
  found.protocol = found.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(found.protocol) || found.hash !== "") {
    throw new DOMException(`a WebSocket's address begins with ws: or wss: and has no #, not ${url}`, "SyntaxError");
  }
  return found.href;
}

// When an address expires, in milliseconds since the epoch; Infinity without an expiry.
function expiryOf(address) {
  const found = address?.url === undefined ? null : address.expiresAt ?? null;
  if (found === null) return Infinity;
  const time = typeof found === "number" || found instanceof Date ? Number(found) : NaN;
  if (!(time >= EARLIEST_MS && time < Infinity)) {
    throw new DOMException(`expiresAt is in milliseconds since the epoch, as Date.now() is, not ${found}`, "SyntaxError");
  }
  return time;
}

// Text, a Blob, or bytes of a buffer or view. Shared memory is copied, because it cannot be sent.
function messageOf(data) {
  if (data instanceof Blob) return data;
  const isView = ArrayBuffer.isView(data);
  if (!isView && !/^\[object (Shared)?ArrayBuffer\]$/.test(Object.prototype.toString.call(data))) return `${data}`;
  const bytes = isView ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  return bytes.buffer instanceof ArrayBuffer ? bytes : bytes.slice();
}

function sizeOf(message) {
  if (typeof message === "string") return new TextEncoder().encode(message).length;
  return message.byteLength ?? message.size;
}

// Refuse what a browser's close() would refuse, even if there is no socket.
function checkClose(code, reason) {
  if (code !== 1000 && !(code >= 3000 && code <= 4999)) {
    throw new DOMException(`a close code is 1000, or 3000 to 4999, not ${code}`, "InvalidAccessError");
  }
  if (sizeOf(reason) > 123) {
    throw new DOMException("a close reason has at most 123 bytes", "SyntaxError");
  }
}

// Without a code: the connection ends, the session may go on.
function drop(socket, session, code = session?.token ? SUSPEND : undefined, reason = undefined) {
  if (socket && socket.readyState < CLOSING) socket.close(code, reason);
}

function report(error) {
  (globalThis.reportError ?? console.error)(error);
}

// The message of an error. A page's function may throw any value.
function textOf(error) {
  try {
    return `${error?.message ?? error}`;
  } catch {
    return "";
  }
}
