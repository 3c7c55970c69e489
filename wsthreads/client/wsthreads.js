// A WebSocket that reconnects. Its interface is that of the browser's WebSocket, with some differences:
//
//   import { ReconnectingWebSocket } from "/wsthreads.js";
//   const socket = new ReconnectingWebSocket("/ws/chat?user=ann");
//   socket.onmessage = ({ data }) => show(data);
//   socket.send("hello");        // queued until there is a connection
//
// - "open" is sent for each connection.
// - "close" is sent once, when the client will not reconnect.
// - The new event "reconnecting" is sent each time that a connection is lost.
// - send() returns whether it accepted the message, and throws in no state.
//
// "open" comes before the queue is sent. So a message that its listeners send at once, such as a login, is the first
// message on the new connection.
//
// No message is sent twice, so a message can be lost with its connection. A message sent while the connection is
// closing waits for the next connection.
//
// The address may be a function, which is called for each connection, for example to get a fresh token. If it says when
// the token expires, `{ url, expiresAt }`, the client connects anew 30 seconds earlier. "open" is sent again, and no
// "reconnecting". The old connection still receives until the first message of the new one, for at most 2 seconds.
//
// Pages cannot send pings, and a connection may die unnoticed, for example while the device sleeps. So the client
// replaces an open connection when the page goes online, returns from the back/forward cache, or was suspended.

const CONNECTING = 0;
const OPEN = 1;
const CLOSING = 2;
const CLOSED = 3;

// Reconnecting is useless after these codes: the client made a mistake, or is not welcome (RFC 6455, 7.4.1, and IANA's
// registry). All others may be temporary: 1001, 1006, 1011, 1012, 1013 and so on.
const STOP_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003]);

/** Whether reconnecting is useless after this close code. True for the application's own codes, 4000 to 4999. */
export function isFinal(code) {
  return STOP_CODES.has(code) || (code >= 4000 && code <= 4999);
}

// The server closes with this code when a session has expired. A fresh token may help, once.
const EXPIRED = 3000;

// So long before a token expires, the client connects with a fresh one; in the middle of the time if a token is shorter.
const RENEW_BEFORE_MS = 30_000;

// So long a renewed connection may be open without a message before the old one is closed. The server has joined it to
// its rooms by then, if the handler is not slow.
const OVERLAP_MS = 2000;

// Browsers run a timer with a longer delay at once.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

// A time before this was meant in seconds: it is in 1973.
const EARLIEST_MS = 1e11;

// How often the client checks whether the page was suspended.
const WATCH_MS = 10_000;

const DEFAULTS = {
  minDelay: 1000,
  maxDelay: 30_000,
  connectTimeout: 10_000,
  stableAfter: 5000,
  maxAttempts: Infinity,
  maxQueued: 1000,
  maxQueuedBytes: 1024 * 1024,
  maxPause: 90_000,  // longer than the minute by which browsers delay timers of hidden pages
  isFinal: ({ code }) => isFinal(code),
  // For tests.
  WebSocket: globalThis.WebSocket,
  now: Date.now,
  random: Math.random,
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  clearTimeout: (timer) => clearTimeout(timer),
};

const EVENTS = ["open", "message", "error", "close", "reconnecting"];

export class ReconnectingWebSocket extends EventTarget {
  static CONNECTING = CONNECTING;
  static OPEN = OPEN;
  static CLOSING = CLOSING;
  static CLOSED = CLOSED;

  #url;
  #protocols;
  #options;
  #socket = null;
  #state = CONNECTING;
  #binaryType = "blob";
  #queue = [];
  #queuedBytes = 0;
  #attempts = 0;  // since the last stable connection
  #retryTimer = null;
  #connectTimer = null;
  #stableTimer = null;
  #watchTimer = null;
  #movedAt = 0;  // when a timer last ran on time
  #expiresAt = Infinity;  // of the current connection's address
  #renewTimer = null;
  #renewAt = Infinity;  // when to connect with a fresh address
  #renewals = 0;  // attempts to do so, since the current connection
  #next = null;  // such an attempt: a connection that is to replace the current one
  #old = null;  // the connection that was replaced, as long as it still receives
  #hasAskedAgain = false;  // for a fresh address after EXPIRED, since the last stable connection
  #generation = 0;  // number of the current connection; events of older ones are ignored
  #listeners = new Map();

  constructor(url, protocols = [], options = {}) {
    super();
    const unknown = Object.keys(options).find((name) => !Object.hasOwn(DEFAULTS, name));
    if (unknown !== undefined) {
      throw new TypeError(`no such option: ${unknown}; there are: ${Object.keys(DEFAULTS).join(", ")}`);
    }
    this.#url = typeof url === "function" ? url : absolute(url);
    this.#protocols = protocols;
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = { ...DEFAULTS, ...Object.fromEntries(given) };
    globalThis.addEventListener?.("online", this.#renew);
    globalThis.addEventListener?.("pageshow", this.#show);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#connect();
  }

  get CONNECTING() { return CONNECTING; }
  get OPEN() { return OPEN; }
  get CLOSING() { return CLOSING; }
  get CLOSED() { return CLOSED; }

  /** CONNECTING also between two connections; CLOSED when no other one will follow. */
  get readyState() {
    return this.#state === OPEN && !this.#isOpen ? CONNECTING : this.#state;
  }

  // The socket's state changes before its "close" event, which comes a round trip later.
  get #isOpen() {
    return this.#state === OPEN && this.#socket?.readyState === OPEN;
  }

  get url() {
    return this.#socket?.url ?? "";
  }

  get protocol() {
    return this.#socket?.protocol ?? "";
  }

  get extensions() {
    return this.#socket?.extensions ?? "";
  }

  /** Bytes that wait, in the browser and in the queue for the next connection. */
  get bufferedAmount() {
    return this.#queuedBytes + (this.#socket?.bufferedAmount ?? 0);
  }

  get binaryType() {
    return this.#binaryType;
  }

  set binaryType(type) {
    this.#binaryType = type;
    if (this.#socket !== null) this.#socket.binaryType = type;
    if (this.#old !== null) this.#old.socket.binaryType = type;
  }

  /**
   * Returns true if the message was sent or queued; false if the queue is full or the end has come. A value that is no
   * text, bytes or Blob becomes text, as with WebSocket.
   */
  send(data) {
    if (arguments.length === 0) throw new TypeError("send() takes a message");
    const bytes = bytesOf(data);
    const message = bytes ?? (data instanceof Blob ? data : `${data}`);
    if (this.#isOpen) {
      this.#socket.send(message);
      return true;
    }
    const { maxQueued, maxQueuedBytes } = this.#options;
    const size = sizeOf(message);
    if (this.#state >= CLOSING || this.#queue.length >= maxQueued || this.#queuedBytes + size > maxQueuedBytes) {
      return false;
    }
    this.#queue.push(bytes?.slice() ?? message);
    this.#queuedBytes += size;
    return true;
  }

  /** Close for good. Queued messages are dropped. */
  close(code = 1000, reason = "") {
    if (this.#state >= CLOSING) return;
    const [number, text] = [Number(code), `${reason}`];
    checkClose(number, text);
    const wasOpen = this.#state === OPEN;
    this.#state = CLOSING;
    this.#dropNext();
    this.#dropOld();
    if (wasOpen) {
      this.#socket.close(number, text);
    } else {
      this.#abandon();
      queueMicrotask(() => this.#end(number, text, false));
    }
  }

  /** Connect now, without waiting for the delay. Does nothing while there is a connection. */
  reconnect() {
    if (this.#retryTimer !== null) this.#connect();
  }

  #wake = () => {
    if (globalThis.document?.hidden) return;
    this.#watch();
    this.reconnect();
  };

  #show = ({ persisted }) => {
    if (persisted) this.#renew();
  };

  // Replace an open connection at once, or end the wait for the next one.
  #renew = () => {
    if (this.#state === OPEN) this.#lost(1006, "the page was away", false, { soon: 0 });
    else this.#wake();
  };

  #watch() {
    if (this.#state !== OPEN) return;
    const { now, maxPause, setTimeout, clearTimeout } = this.#options;
    clearTimeout(this.#watchTimer);
    if (now() - this.#movedAt > maxPause) {
      this.#renew();
    } else {
      this.#movedAt = now();
      this.#watchTimer = setTimeout(() => this.#watch(), WATCH_MS);
    }
  }

  async #connect() {
    const { WebSocket, setTimeout, clearTimeout, connectTimeout } = this.#options;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    const generation = ++this.#generation;
    const isCurrent = () => generation === this.#generation;
    this.#connectTimer = setTimeout(() => isCurrent() && this.#lost(1006, "timeout", false), connectTimeout);
    // Later, because the constructor has not returned yet: nobody could listen.
    const fail = (error, isHopeless) => queueMicrotask(() => {
      if (isCurrent()) this.#lost(1006, messageOf(error), false, { isHopeless });
    });
    let address = this.#url;
    try {
      // The function is called for each connection and may take a while, for example to get a fresh token. If it
      // throws, the next call may succeed: for example, a proxy's error page makes JSON.parse throw.
      if (typeof address === "function") address = await address();
    } catch (error) {
      fail(error, false);
      return;
    }
    if (!isCurrent()) return;
    let socket, expiresAt;
    try {
      expiresAt = expiryOf(address);
      socket = this.#socket = new WebSocket(absolute(address?.url ?? address), this.#protocols);
    } catch (error) {
      // WebSocket refuses the address or a subprotocol, or the time is none: no attempt can ever succeed.
      fail(error, error instanceof DOMException && error.name === "SyntaxError");
      return;
    }
    this.#listenTo(socket, generation);
    socket.onopen = () => isCurrent() && this.#opened(expiresAt);
  }

  #listenTo(socket, generation) {
    const isCurrent = () => generation === this.#generation;
    socket.binaryType = this.#binaryType;
    socket.onmessage = ({ data, origin }) => {
      if (!isCurrent()) return;
      this.#dropOld();
      this.#emit(new MessageEvent("message", { data, origin }));
    };
    socket.onerror = () => isCurrent() && this.#emit(new Event("error"));
    socket.onclose = ({ code, reason, wasClean }) => isCurrent() && this.#lost(code, reason, wasClean);
  }

  // Connect with a fresh address. The current connection goes on meanwhile; if it ends, it is lost as always.
  async #replace() {
    const { WebSocket, setTimeout, connectTimeout } = this.#options;
    this.#dropNext();
    const next = this.#next = { socket: null, timer: null };
    const isWanted = () => next === this.#next;
    const fail = () => {
      if (!isWanted()) return;
      this.#dropNext();
      this.#renewTimer = setTimeout(() => this.#replace(), this.#delayBefore(++this.#renewals));
    };
    next.timer = setTimeout(fail, connectTimeout);
    let expiresAt;
    try {
      const address = await this.#url();
      if (!isWanted()) return;
      expiresAt = expiryOf(address);
      if (expiresAt <= this.#expiresAt) {  // the old token, from a cache of the page: a connection with it gains no time
        fail();
        return;
      }
      next.socket = new WebSocket(absolute(address?.url ?? address), this.#protocols);
    } catch {  // the next one may be better; why not is told when the current connection has ended
      fail();
      return;
    }
    next.socket.onclose = fail;
    next.socket.onopen = () => {
      if (!isWanted()) return;
      this.#next = null;  // so that it is not closed with the old connection
      this.#options.clearTimeout(next.timer);
      const socket = this.#socket;
      this.#socket = null;  // so that it is not closed yet
      this.#abandon();
      this.#socket = next.socket;
      this.#listenTo(next.socket, this.#generation);
      this.#retire(socket);
      this.#opened(expiresAt);
    };
  }

  // The server opens the new connection before its handler joins rooms. Meanwhile, the old one gets what is broadcast.
  #retire(socket) {
    const old = this.#old = { socket, timer: this.#options.setTimeout(() => this.#dropOld(), OVERLAP_MS) };
    const isOld = () => old === this.#old;
    socket.onmessage = ({ data, origin }) => isOld() && this.#emit(new MessageEvent("message", { data, origin }));
    socket.onclose = () => isOld() && this.#dropOld();
  }

  #dropOld() {
    const old = this.#old;
    this.#old = null;
    if (old === null) return;
    this.#options.clearTimeout(old.timer);
    if (old.socket.readyState < CLOSING) old.socket.close(1000, "renewed");
  }

  #dropNext() {
    const next = this.#next;
    this.#next = null;
    this.#options.clearTimeout(this.#renewTimer);
    if (next === null) return;
    this.#options.clearTimeout(next.timer);
    if (next.socket !== null && next.socket.readyState < CLOSING) next.socket.close();
  }

  #renewInTime() {
    const { now, setTimeout } = this.#options;
    const left = this.#renewAt - now();
    if (left <= 0) this.#replace();
    else if (left < Infinity) this.#renewTimer = setTimeout(() => this.#renewInTime(), Math.min(left, LONGEST_TIMER_MS));
  }

  #opened(expiresAt) {
    const { now, setTimeout, clearTimeout, stableAfter } = this.#options;
    clearTimeout(this.#connectTimer);
    this.#state = OPEN;
    this.#movedAt = now();
    this.#watch();
    // Later, because a server could accept and close at once: then the delays must grow.
    this.#stableTimer = setTimeout(() => { this.#attempts = 0; this.#hasAskedAgain = false; }, stableAfter);
    this.#expiresAt = expiresAt;
    const left = expiresAt - now();  // not above zero: the clock of this device is wrong, so the server decides
    this.#renewAt = left > 0 ? now() + Math.max(left - RENEW_BEFORE_MS, left / 2) : Infinity;
    this.#renewals = 0;
    this.#renewInTime();
    this.#emit(new Event("open"));
    while (this.#queue.length > 0 && this.#isOpen) {
      const message = this.#queue.shift();
      this.#queuedBytes -= sizeOf(message);
      this.#socket.send(message);
    }
  }

  #lost(code, reason, wasClean, { isHopeless = false, soon } = {}) {
    const { setTimeout, maxAttempts } = this.#options;
    const wasMeant = this.#state === CLOSING;
    this.#abandon();
    if (!wasMeant) this.#state = CONNECTING;
    const generation = this.#generation;
    const isOver = wasMeant || isHopeless || this.#mayNotComeBack({ code, reason, wasClean });
    if (generation !== this.#generation) return;  // isFinal has called close()
    if (isOver || this.#attempts >= maxAttempts) {
      this.#end(code, reason, wasClean);
      return;
    }
    const attempt = ++this.#attempts;
    const delay = soon ?? this.#delayBefore(attempt);
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
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
      (globalThis.reportError ?? console.error)(error);
      return isFinal(close.code);
    }
  }

  // Doubles up to maxDelay. Random in its upper half, so that many clients do not reconnect at once.
  #delayBefore(attempt) {
    const { minDelay, maxDelay, random } = this.#options;
    const longest = Math.min(maxDelay, minDelay * 2 ** (attempt - 1));
    return longest / 2 + random() * (longest / 2);
  }

  // Drop the current connection or attempt, and ignore its further events.
  #abandon() {
    const { clearTimeout } = this.#options;
    for (const timer of [this.#connectTimer, this.#stableTimer, this.#watchTimer, this.#retryTimer]) {
      clearTimeout(timer);
    }
    this.#retryTimer = null;
    this.#dropNext();
    this.#dropOld();
    this.#generation++;
    if (this.#socket !== null && this.#socket.readyState < CLOSING) this.#socket.close();
    this.#socket = null;
  }

  #end(code, reason, wasClean) {
    this.#state = CLOSED;
    this.#queue = [];
    this.#queuedBytes = 0;
    globalThis.removeEventListener?.("online", this.#renew);
    globalThis.removeEventListener?.("pageshow", this.#show);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#emit(new CloseEvent("close", { code, reason, wasClean }));
  }

  #emit(event) {
    this.dispatchEvent(event);
  }

  static {
    // onopen and so on. A replaced listener keeps its place in the order, as in the browser.
    for (const type of EVENTS) {
      Object.defineProperty(this.prototype, `on${type}`, {
        configurable: true,
        enumerable: true,
        get() {
          return this.#listeners.get(type) ?? null;
        },
        set(listener) {
          if (!this.#listeners.has(type)) {
            this.addEventListener(type, (event) => this.#listeners.get(type)?.call(this, event));
          }
          this.#listeners.set(type, typeof listener === "function" ? listener : null);
        },
      });
    }
  }
}

// The absolute ws: or wss: address for an address that may be relative to the page.
function absolute(url) {
  const found = new URL(url, globalThis.location?.href);
  found.protocol = found.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(found.protocol) || found.hash !== "") {
    throw new DOMException(`a WebSocket's address begins with ws: or wss: and has no #, not ${url}`, "SyntaxError");
  }
  return found.href;
}

// When an address expires, in milliseconds since the epoch; Infinity if it does not say so.
function expiryOf(address) {
  const found = address?.url === undefined ? null : address.expiresAt ?? null;
  if (found === null) return Infinity;
  const time = typeof found === "number" || found instanceof Date ? Number(found) : NaN;
  if (!(time >= EARLIEST_MS && time < Infinity)) {
    throw new DOMException(`expiresAt is in milliseconds since the epoch, as Date.now() is, not ${found}`, "SyntaxError");
  }
  return time;
}

// The bytes of a buffer or view; null for anything else. Shared memory is copied, because it cannot be sent.
function bytesOf(data) {
  const isView = ArrayBuffer.isView(data);
  if (!isView && !/^\[object (Shared)?ArrayBuffer\]$/.test(Object.prototype.toString.call(data))) return null;
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

// The message of an error. A page's function may throw any value.
function messageOf(error) {
  try {
    return `${error?.message ?? error}`;
  } catch {
    return "";
  }
}
