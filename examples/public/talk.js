// The connection to a room. rooms.js serves all rooms at ws/rooms, with JSON in both directions. chat.js serves the room
// "chat" at ws/chat. It has no list of people, no private messages and no history. The page sends plain text to chat.js.

import { ReconnectingWebSocket } from "./wsthreads.js"; // served by: wsthreads run --serve-client

export const MAIN_ROOM = "chat";

const TYPING_MS = 4000; // how long somebody counts as typing after the last key
const MAX_REPEATED = 1000; // how many ids of messages are remembered

export class Talk {
  #socket;
  #isTyping = false;
  #timer = null;
  #since = null; // the last position; after a lost connection, the server sends all later messages
  #ids = new Set(); // the ids of the last messages, the oldest first

  /**
   * `handlers` are onOpen() for a new session, onResumed() if the session continues and nothing was missed,
   * onMessage(message), onWaiting(until) and onEnd(text). None of them is called after `leave`.
   */
  constructor(me, room, handlers) {
    this.me = me;
    this.isPlain = room === MAIN_ROOM;
    const url = new URL(this.isPlain ? "ws/chat" : "ws/rooms", location.href);
    const address = () => {
      url.search = new URLSearchParams({ user: me, ...(!this.isPlain && { room }), ...(this.#since && { since: this.#since }) });
      return url;
    };
    const socket = this.#socket = new ReconnectingWebSocket(address, [], { minDelay: 500, maxDelay: 10_000 });
    const handle = (type, handler) => socket.addEventListener(type, (event) => {
      if (socket === this.#socket) handler(event);
    });
    handle("open", () => {
      this.#isTyping = false; // the new session has not told the server that the user is typing
      handlers.onOpen();
    });
    handle("resumed", () => handlers.onResumed()); // a server with --resume-s
    handle("message", ({ data }) => {
      const message = JSON.parse(data);
      this.#since = message.position ?? this.#since;
      if (message.type !== "message" || this.#isNew(message.id)) handlers.onMessage(message);
    });
    handle("reconnecting", ({ detail }) => handlers.onWaiting(Date.now() + detail.delay));
    handle("close", ({ code, reason }) => handlers.onEnd(`The server has closed the connection: ${code} ${reason}`));
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Send to everybody in the room, or only to one user. The page shows the message when rooms.js sends it back. */
  say(text, to = "") {
    if (this.isPlain) this.#socket.send(text);
    else this.#send(to ? { type: "private", to, text } : { type: "message", text });
    if (!to) this.#forgetTyping(); // rooms.js knows that typing has ended
  }

  /** The user has typed. Call this for each change. The server is told when typing begins, and when it has ended. */
  type() {
    if (this.isPlain || !this.isOpen) return;
    if (!this.#isTyping) this.#send({ type: "typing", typing: true });
    this.#forgetTyping();
    this.#isTyping = true;
    this.#timer = setTimeout(() => this.stopTyping(), TYPING_MS);
  }

  stopTyping() {
    if (this.#isTyping && this.isOpen) this.#send({ type: "typing", typing: false });
    this.#forgetTyping();
  }

  reconnect() {
    this.#socket?.reconnect();
  }

  leave() {
    this.#forgetTyping();
    this.#socket?.close();
    this.#socket = null;
  }

  /** Whether the page does not have this message yet. (A position may be a little older than the last message.) */
  #isNew(id) {
    if (id === undefined) return true; // a message of chat.js
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > MAX_REPEATED) this.#ids.delete(this.#ids.values().next().value);
    return true;
  }

  #forgetTyping() {
    this.#isTyping = false;
    clearTimeout(this.#timer);
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }
}
