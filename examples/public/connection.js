// A WebSocket that comes back: after a lost connection it connects again, by itself, until it is told to close.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 10_000;

/** How long to wait before attempt number `attempt`; spread, so that many clients do not come back at one moment. */
export function delayBefore(attempt) {
  const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return longest / 2 + Math.random() * (longest / 2);
}

/**
 * Events: "open", "message" (its `detail` is the text), and "waiting" (its `detail` is the time of the next attempt,
 * as `Date.now()` counts).
 */
export class Connection extends EventTarget {
  #url;
  #socket = null;
  #timer = null;
  #attempt = 0;
  #closed = false;

  constructor(url) {
    super();
    this.#url = url;
    addEventListener("online", this.#wake);
    document.addEventListener("visibilitychange", this.#wake);
    this.#connect();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** False if there is no connection at the moment; then nothing is sent. */
  send(text) {
    if (!this.isOpen) return false;
    this.#socket.send(text);
    return true;
  }

  /** Do not wait any longer for the next attempt. */
  retryNow() {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#wake);
    document.removeEventListener("visibilitychange", this.#wake);
    this.#socket?.close(1000);
  }

  #wake = () => {
    if (!document.hidden) this.retryNow();
  };

  #connect() {
    this.#timer = null;
    const socket = this.#socket = new WebSocket(this.#url);
    socket.onopen = () => {
      this.#attempt = 0;
      this.#emit("open");
    };
    socket.onmessage = (event) => {
      if (!this.#closed) this.#emit("message", event.data);
    };
    socket.onclose = () => {
      if (this.#closed) return;
      const delay = delayBefore(this.#attempt++);
      this.#timer = setTimeout(() => this.#connect(), delay);
      this.#emit("waiting", Date.now() + delay);
    };
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
