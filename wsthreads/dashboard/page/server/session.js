// The view of one session: its details, and the buttons to close or kick it.

import { $, copyButton, make, setText } from "../dom.js";
import { age, bytes, clock, count, plural, seconds } from "../format.js";
import { ask, askForClose, CODES, CODE_PATTERN, toast } from "../dialogs.js";
import { nameOf, sendForm } from "./sessions.js";
import { workerOf } from "./workers.js";

const FACTS = [
  ["Id", ({ id }) => id],
  ["Endpoint", ({ endpoint }) => endpoint],
  ["Worker", (session) => workerOf(session)],
  ["Address", ({ address }) => address],
  ["Path", ({ path }) => path],
  ["Subprotocol", ({ subprotocol }) => subprotocol || "none"],
  ["Open", ({ since }, now) => `since ${clock(since)}, for ${age(now - since)}`],
  ["Received", ({ messages_in: messages, bytes_in: size }) => `${plural(messages, "message")}, ${bytes(size)}`],
  ["Sent", ({ messages_out: messages, bytes_out: size, latest_replaced: replaced }) =>
    `${plural(messages, "message")}, ${bytes(size)}${replaced ? `, ${count(replaced)} replaced by later ones` : ""}`],
  ["Waiting", ({ bytes_waiting: size }) => bytes(size)],
  ["Not acknowledged", ({ survives, unacknowledged_bytes: size }) => (survives ? bytes(size) : "not kept")],
  ["Ping", ({ round_trip_s: time }) => (time === null || time === undefined ? "not measured yet" : seconds(time))],
];

export class SessionView {
  #connection;
  #onRoom;
  #onUser;
  #onChange;
  #id = null;
  #isShown = false;
  #last = null;
  #parts = null;

  /**
   * `onRoom(room)` is called when a room of the session is chosen, and `onUser(user)` when the session's user is chosen.
   * `onChange(id)` is called when this view shows another session, or none (null).
   */
  constructor(connection, { onRoom, onUser, onChange }) {
    this.#connection = connection;
    this.#onRoom = onRoom;
    this.#onUser = onUser;
    this.#onChange = onChange;
    connection.on("session", (message) => {
      if (message.id === this.#id) this.#update(message);
    });
    $("session").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.choose(null);
    });
  }

  show() {
    this.#isShown = true;
    if (this.#id !== null) this.#connection.watch("session", { id: this.#id });
  }

  hide() {
    this.#isShown = false;
    this.#connection.unwatch("session");
  }

  /** Open the view of the session with this id; null closes it. */
  choose(id) {
    const hadFocus = $("session").contains(document.activeElement);
    this.#id = id;
    this.#last = null;
    $("session").hidden = true;
    $("session").parentElement.classList.remove("looking");
    this.#connection.unwatch("session");
    this.#onChange(id);
    if (id === null) {
      if (hadFocus) $("sessions-rows").querySelector("button[tabindex='0']")?.focus();
      return;
    }
    this.#build();
    if (this.#isShown) this.#connection.watch("session", { id });
  }

  #build() {
    const parts = this.#parts = {
      title: make("h2", { tabIndex: -1 }),
      note: make("p", { className: "warn", role: "status", hidden: true }),
      close: make("button", { type: "button", className: "small quiet", textContent: "Close …", onclick: () => this.#close() }),
      kick: make("button", { type: "button", className: "small danger", textContent: "Kick …", onclick: () => this.#kick() }),
      facts: FACTS.map(() => make("dd", { className: "mono" })),
      user: make("p", { className: "chips", hidden: true }),
      rooms: make("p", { className: "chips" }),
      tables: ["Parameters", "Attributes", "Headers"].map((name) => ({ name, body: make("dl", { className: "facts" }) })),
    };
    $("session").replaceChildren(
      make("div", { className: "aside-head" }, parts.title,
        make("button", { type: "button", className: "small quiet back", textContent: "✕", "aria-label": "Close this view", onclick: () => this.choose(null) })),
      parts.note,
      make("div", { className: "buttons" }, parts.close, parts.kick, copyButton(() => this.#id, "Copy id")),
      make("dl", { className: "facts" }, ...FACTS.flatMap(([name], index) => [make("dt", { textContent: name }), parts.facts[index]])),
      parts.user,
      make("h3", { textContent: "Rooms" }),
      parts.rooms,
      ...parts.tables.flatMap(({ name, body }) => [make("h3", { textContent: name }), body]),
      make("h3", { textContent: "Send a message" }),
      sendForm(this.#connection, "Message to this session", () => ({ endpoint: this.#last.endpoint, session: this.#id })),
    );
  }

  #update(message) {
    const parts = this.#parts;
    const isFirst = this.#last === null;
    const session = this.#last = message.gone ? { ...this.#last, id: this.#id, gone: true } : message;
    setText(parts.title, nameOf(session));
    const note = noteOf(session);
    setText(parts.note, note);
    parts.note.hidden = note === "";
    // A disabled button loses the focus, and then the keys of this view stop working.
    if (session.gone && [parts.close, parts.kick].includes(document.activeElement)) parts.title.focus();
    parts.close.disabled = parts.kick.disabled = Boolean(session.gone);
    if (session.endpoint !== undefined) this.#fill(session);
    $("session").hidden = false;
    $("session").parentElement.classList.add("looking");
    // On a phone, this view replaces the list, so the page scrolls to it.
    if (isFirst) parts.title.focus({ preventScroll: matchMedia("(min-width: 60rem)").matches });
  }

  #fill(session) {
    const parts = this.#parts;
    FACTS.forEach(([, text], index) => setText(parts.facts[index], text(session, this.#connection.now())));
    this.#fillUser(session);
    this.#fillRooms(session);
    const tables = [session.parameters, session.attributes, session.headers];
    tables.forEach((table, index) => fillTable(parts.tables[index].body, table ?? {}));
  }

  #fillUser({ endpoint, user, has_user: hasUser }) {
    const { user: place } = this.#parts;
    if (!hasUser || place.childElementCount) return; // a session keeps its user
    place.hidden = false;
    place.append(make("button", {
      type: "button", className: "chip", textContent: `All sessions of ${user}`, onclick: () => this.#onUser({ endpoint, user }),
    }));
  }

  #fillRooms({ endpoint, rooms }) {
    const { rooms: place } = this.#parts;
    const names = rooms ?? [];
    if (place.dataset.rooms === JSON.stringify(names)) return;
    place.dataset.rooms = JSON.stringify(names);
    place.replaceChildren(...names.map((name) => make("button", {
      type: "button", className: "chip", textContent: name, onclick: () => this.#onRoom({ endpoint, name }),
    })));
    if (!names.length) place.append(make("span", { className: "soft", textContent: "none" }));
  }

  async #close() {
    const id = this.#id;
    const { endpoint } = this.#last;
    const chosen = await askForClose(`Close the session of ${nameOf(this.#last)}`, CODES, CODE_PATTERN);
    if (chosen) await this.#do({ type: "close", session: id, endpoint, ...chosen });
  }

  async #kick() {
    const id = this.#id;
    const { endpoint } = this.#last;
    const isSure = await ask({
      title: `Kick ${nameOf(this.#last)}?`,
      text: "The server closes the connection with 1008. Well-behaved clients do not reconnect after 1008.",
      action: "Kick",
      isDangerous: true,
    });
    if (isSure) await this.#do({ type: "kick", session: id, endpoint });
  }

  async #do(action) {
    const { ok, text } = await this.#connection.request(action);
    toast(text || (ok ? "Done." : "That did not work."), !ok);
  }
}

function noteOf({ gone, open, connected }) {
  if (gone) return "This session has ended.";
  if (!open) return "This session is closing.";
  return connected === false ? "This session is suspended: it has lost its connection, and waits for its client." : "";
}

function fillTable(body, table) {
  const entries = Object.entries(table);
  const wanted = JSON.stringify(entries);
  if (body.dataset.shown === wanted) return; // so that selected text stays selected
  body.dataset.shown = wanted;
  body.replaceChildren(...entries.flatMap(([name, value]) => [
    make("dt", { className: "mono", textContent: name }), make("dd", { className: "mono", textContent: value })]));
  if (!entries.length) body.append(make("dd", { className: "soft", textContent: "none" }));
}
