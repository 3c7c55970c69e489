// This page's own connection to the server. It reconnects by itself, and then requests all watched lists again.

import { ReconnectingWebSocket } from "./wsthreads.js";
import { refusal, subprotocols } from "./token.js";

const ANSWER_MS = 10_000;

const LISTS = new Set(["sessions", "rooms", "session", "user", "room"]);

// The server sends a sample every second. After this time without one, the server or the network is stuck.
const SILENCE_MS = 8000;

/**
 * Emits "state" with { state, until, refusal } (connecting, live, silent, away, restarting, draining, refused). Emits
 * each message from the server under its type, such as "sample".
 */
export class Connection extends EventTarget {
  #socket = null;
  #state = "connecting";
  #requests = new Map(); // number -> { resolve, timer }
  #lastRequest = 0;
  #watched = new Map(); // list -> the message that requests it
  #heardAt = 0;
  #clockOffset = 0; // by how many seconds the server's clock is ahead of this computer's

  constructor() {
    super();
    setInterval(() => this.#checkSilence(), 2000);
  }

  /** Listen to a type of message, or to "state". */
  on(type, callback) {
    this.addEventListener(type, ({ detail }) => callback(detail));
  }

  get state() {
    return this.#state;
  }

  /** Seconds since the epoch, by the server's clock. */
  now() {
    return Date.now() / 1000 + this.#clockOffset;
  }

  open() {
    this.#socket?.close();
    this.#say("connecting");
    const socket = this.#socket = new ReconnectingWebSocket(new URL("live", location.href), subprotocols(), {
      minDelay: 500,
      maxDelay: 5000,
      isFinal: () => false, // reconnect after every close code: the operator wants to see when the server is back
    });
    const handle = (type, callback) => socket.addEventListener(type, (event) => {
      if (socket === this.#socket) callback(event);
    });
    handle("open", () => this.#opened());
    handle("message", ({ data }) => this.#received(JSON.parse(data)));
    handle("reconnecting", ({ detail }) => this.#lost(detail));
    handle("close", () => this.#say("away"));
  }

  /** Reconnect at once. */
  retry() {
    this.#socket?.reconnect();
  }

  /** Send a request; resolves to the answer, { ok, text }. */
  request(message) {
    if (this.#state !== "live") return Promise.resolve({ ok: false, text: "The server cannot be reached at the moment." });
    const request = ++this.#lastRequest;
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#answer({ request, ok: false, text: "The server has not answered." }), ANSWER_MS);
      this.#requests.set(request, { resolve, timer });
      this.#send({ ...message, request });
    });
  }

  /** Request a list, one of LISTS, now and after each change. Replaces the last request for it. */
  watch(list, options) {
    const message = { type: "watch", list, ...options, request: ++this.#lastRequest };
    this.#watched.set(list, message);
    this.#send(message);
  }

  unwatch(list) {
    if (this.#watched.delete(list)) this.#send({ type: "unwatch", list });
  }

  #send(message) {
    // A message that cannot be sent now is dropped: after a reconnect, all watched lists are requested again.
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #opened() {
    this.#heardAt = performance.now();
    this.#say("live");
    for (const message of this.#watched.values()) this.#send(message);
  }

  #received(message) {
    this.#heardAt = performance.now();
    if (this.#state === "silent") this.#say("live");
    if (message.type === "sample") this.#clockOffset = message.at - Date.now() / 1000;
    if (message.type === "answer") this.#answer(message);
    else if (!this.#isOutdated(message)) this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  // Whether a list answers an older request than the last one.
  #isOutdated({ type, request }) {
    if (!LISTS.has(type)) return false;
    const watched = this.#watched.get(type);
    return !watched || (request !== null && request !== undefined && request !== watched.request);
  }

  #answer({ request, ok, text }) {
    const waiting = this.#requests.get(request);
    if (!waiting) return;
    this.#requests.delete(request);
    clearTimeout(waiting.timer);
    waiting.resolve({ ok, text });
  }

  async #lost({ code, delay }) {
    for (const request of [...this.#requests.keys()]) {
      this.#answer({ request, ok: false, text: "The connection was lost." });
    }
    const until = Date.now() + delay;
    // If several attempts fail, the first close code says why the server is unreachable.
    const kept = ["restarting", "draining"].includes(this.#state) ? this.#state : "away";
    this.#say({ 1012: "restarting", 1001: "draining" }[code] ?? kept, until);
    if (code !== 1006) return;
    const socket = this.#socket;
    const refused = await refusal();
    if (refused && socket === this.#socket && socket.readyState !== WebSocket.OPEN) {
      this.#socket = null;
      socket.close();
      this.#say("refused", null, refused);
    }
  }

  #checkSilence() {
    // A hidden page's timers run late, which says nothing about the server.
    const isSilent = !document.hidden && performance.now() - this.#heardAt > SILENCE_MS;
    if (this.#state === "live" && isSilent) this.#say("silent");
  }

  #say(state, until = null, refusal = null) {
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, until, refusal } }));
  }
}
