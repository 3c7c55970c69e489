// A WebSocket that comes back. Its interface is the browser's WebSocket, as far as that makes sense:
//
//   import { ReconnectingWebSocket } from "/wsthreads.js";
//   const socket = new ReconnectingWebSocket("/ws/chat?user=ann");
//   socket.onmessage = ({ data }) => show(data);
//   socket.send("hello");        // queued until there is a connection
//
// What differs: "open" comes with each connection; "close" comes once, when no further one will be made, and the new
// event "reconnecting" whenever one was lost; send() says whether it took the message, and throws for no state.
//
// "open" comes before the queue is sent: what its listeners send at once, such as a login, is the first that the server
// gets from the new connection.
//
// A message that was on its way when the connection was lost may be lost with it: nothing is sent twice. One that is
// sent when the browser knows that the connection is closing waits for the next one.
//
// No page can ping, and a connection may die without the browser being told, as when the device sleeps. So an open
// connection is replaced when the page goes online, comes back from the back/forward cache, or has stood still.

const CONNECTING = 0;
const OPEN = 1;
const CLOSING = 2;
const CLOSED = 3;

// What the same client would only meet again: it has done something wrong, or is not wanted (RFC 6455, 7.4.1, and
// IANA's registry). All others are somebody's trouble that may pass: 1001, 1006, 1011, 1012, 1013 and so on.
const STOP_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003]);

/** Whether a close code means that there is no use in coming back. 4000 to 4999 are the application's own: they do. */
export function isFinal(code) {
  return STOP_CODES.has(code) || (code >= 4000 && code <= 4999);
}

// How often it looks whether the page has stood still.
const WATCH_MS = 10_000;

const DEFAULTS = {
  minDelay: 1000,
  maxDelay: 30_000,
  connectTimeout: 10_000,
  stableAfter: 5000,
  maxAttempts: Infinity,
  maxQueued: 1000,
  maxQueuedBytes: 1024 * 1024,
  maxPause: 90_000,  // more than the minute that browsers let the timers of a hidden page wait
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
  #attempts = 0;  // since a connection was stable
  #retryTimer = null;
  #connectTimer = null;
  #stableTimer = null;
  #watchTimer = null;
  #movedAt = 0;  // when the page was last seen not to stand still
  #generation = 0;  // of connections: what an older one does is of no interest
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

  /** CONNECTING also between connections; CLOSED when no further one will be made. */
  get readyState() {
    return this.#state === OPEN && !this.#isOpen ? CONNECTING : this.#state;
  }

  // The socket knows first that the other side is closing: its event comes a round trip later.
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

  /** Bytes that wait: in the browser, and in the queue while there is no connection. */
  get bufferedAmount() {
    return this.#queuedBytes + (this.#socket?.bufferedAmount ?? 0);
  }

  get binaryType() {
    return this.#binaryType;
  }

  set binaryType(type) {
    this.#binaryType = type;
    if (this.#socket !== null) this.#socket.binaryType = type;
  }

  /**
   * True if the message was sent or queued; false, and nothing happens, if the queue is full or all is over. What is
   * neither text nor bytes nor a Blob is made a text, as by WebSocket.
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

  /** Close for good. What is queued is not sent any more. */
  close(code = 1000, reason = "") {
    if (this.#state >= CLOSING) return;
    const [number, text] = [Number(code), `${reason}`];
    checkClose(number, text);
    const wasOpen = this.#state === OPEN;
    this.#state = CLOSING;
    if (wasOpen) {
      this.#socket.close(number, text);
    } else {
      this.#abandon();
      queueMicrotask(() => this.#end(number, text, false));
    }
  }

  /** Try now, without waiting any longer; nothing happens while there is a connection. */
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

  // An open connection is given up for another, at once; a wait for the next one ends.
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
    // In the constructor no event can be heard yet.
    const fail = (error, isHopeless) => queueMicrotask(() => {
      if (isCurrent()) this.#lost(1006, messageOf(error), false, { isHopeless });
    });
    let url = this.#url;
    try {
      // A function may take a while to come by a fresh token; it is called for each connection. Whatever it throws,
      // the next call may succeed: a proxy's error page, say, is a SyntaxError for JSON.parse.
      if (typeof url === "function") url = await url();
    } catch (error) {
      fail(error, false);
      return;
    }
    if (!isCurrent()) return;
    let socket;
    try {
      socket = this.#socket = new WebSocket(absolute(url), this.#protocols);
    } catch (error) {
      // WebSocket refuses the address or a subprotocol: no attempt can ever succeed.
      fail(error, error instanceof DOMException && error.name === "SyntaxError");
      return;
    }
    socket.binaryType = this.#binaryType;
    socket.onopen = () => isCurrent() && this.#opened();
    socket.onmessage = ({ data, origin }) => {
      if (isCurrent()) this.#emit(new MessageEvent("message", { data, origin }));
    };
    socket.onerror = () => isCurrent() && this.#emit(new Event("error"));
    socket.onclose = ({ code, reason, wasClean }) => isCurrent() && this.#lost(code, reason, wasClean);
  }

  #opened() {
    const { now, setTimeout, clearTimeout, stableAfter } = this.#options;
    clearTimeout(this.#connectTimer);
    this.#state = OPEN;
    this.#movedAt = now();
    this.#watch();
    // A server that lets in and closes at once must not be asked again and again without a pause.
    this.#stableTimer = setTimeout(() => { this.#attempts = 0; }, stableAfter);
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
    try {
      return Boolean(this.#options.isFinal(close));
    } catch (error) {
      (globalThis.reportError ?? console.error)(error);
      return isFinal(close.code);
    }
  }

  // Doubles up to the longest, and is spread over its upper half, so that many clients do not come back at once.
  #delayBefore(attempt) {
    const { minDelay, maxDelay, random } = this.#options;
    const longest = Math.min(maxDelay, minDelay * 2 ** (attempt - 1));
    return longest / 2 + random() * (longest / 2);
  }

  // Let go of the present connection, or attempt, whatever becomes of it.
  #abandon() {
    const { clearTimeout } = this.#options;
    for (const timer of [this.#connectTimer, this.#stableTimer, this.#watchTimer, this.#retryTimer]) {
      clearTimeout(timer);
    }
    this.#retryTimer = null;
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
    // onopen and the like. A listener that is set anew stays in its place, as in the browser.
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

// An address as WebSocket wants it, from one that may be relative to the page.
function absolute(url) {
  const found = new URL(url, globalThis.location?.href);
  found.protocol = found.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(found.protocol) || found.hash !== "") {
    throw new DOMException(`a WebSocket's address begins with ws: or wss: and has no #, not ${url}`, "SyntaxError");
  }
  return found.href;
}

// The bytes of a buffer, or of a part of one; null for anything else. A view of memory that is shared cannot be sent.
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

// Refuse at once what a browser's close() would refuse, also where there is no socket to do it.
function checkClose(code, reason) {
  if (code !== 1000 && !(code >= 3000 && code <= 4999)) {
    throw new DOMException(`a close code is 1000, or 3000 to 4999, not ${code}`, "InvalidAccessError");
  }
  if (sizeOf(reason) > 123) {
    throw new DOMException("a close reason has at most 123 bytes", "SyntaxError");
  }
}

// What an error says, which may be anything that a function of the page's has thrown.
function messageOf(error) {
  try {
    return `${error?.message ?? error}`;
  } catch {
    return "";
  }
}
