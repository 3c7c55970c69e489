// The list of rooms, with their members, histories and owners. And the view of one room: who is there, what the room
// holds, its members, a form for a broadcast, and a button to close the room.

import { $, debounced, make, setOptions, setText } from "../dom.js";
import { age, clock, count, plural, seconds } from "../format.js";
import { askForClose, CODES, CODE_PATTERN, toast } from "../dialogs.js";
import { rove } from "../roving.js";
import { Rows } from "../rows.js";
import { makeRoomState, MESSAGES_SHOWN } from "./room_state.js";
import { nameOf } from "./sessions.js";
import { workerOf } from "./workers.js";

const LIMIT = 200;
const MEMBERS_SHOWN = 20;
const PERSONS_SHOWN = 50;
const LISTS_OF_ONE = ["sessions", "room", "room_state"];

const keyOf = ({ endpoint, name }) => JSON.stringify([endpoint, name]);

export class Rooms {
  #connection;
  #onSession;
  #onUser;
  #onMembers;
  #isShown = false;
  #chosen = null; // { endpoint, name }
  #listed = [];
  #rows;
  #parts = null; // of the view of the chosen room
  #refreshRoving;

  /**
   * `onSession(id)` is called to open a member's session, `onUser({ endpoint, user })` to open a user, and
   * `onMembers(room)` to list all members of a room.
   */
  constructor(connection, { onSession, onUser, onMembers }) {
    this.#connection = connection;
    this.#onSession = onSession;
    this.#onUser = onUser;
    this.#onMembers = onMembers;
    this.#rows = new Rows($("rooms-rows"), { key: keyOf, create: (room) => this.#create(room), update: (row, room) => this.#update(row, room) });
    this.#refreshRoving = rove($("rooms-rows"), "button.name");
    $("rooms-filter").addEventListener("input", debounced(() => this.#watch(), 200));
    $("rooms-endpoint").addEventListener("change", () => this.#watch());
    connection.on("rooms", (message) => this.#list(message));
    connection.on("sessions", (message) => this.#listMembers(message));
    connection.on("room", (message) => this.#listPersons(message));
    connection.on("room_state", (message) => this.#showState(message));
    connection.on("sample", () => this.#tick());
    $("room").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.choose(null);
    });
  }

  show() {
    this.#isShown = true;
    this.#watch();
    this.#watchMembers();
  }

  hide() {
    this.#isShown = false;
    for (const list of ["rooms", ...LISTS_OF_ONE]) this.#connection.unwatch(list);
  }

  endpoints(paths) {
    setOptions($("rooms-endpoint"), paths, 1);
  }

  #watch() {
    if (!this.#isShown) return;
    const filter = $("rooms-filter").value.trim().slice(0, 200);
    this.#connection.watch("rooms", { filter, endpoint: $("rooms-endpoint").value || null, limit: LIMIT });
  }

  #watchMembers() {
    if (!this.#isShown || this.#chosen === null) return;
    const { endpoint, name } = this.#chosen;
    this.#connection.watch("sessions", { filter: "", endpoint, room: name, sort: "since", descending: false, limit: MEMBERS_SHOWN });
    this.#connection.watch("room", { endpoint, room: name, limit: PERSONS_SHOWN });
    this.#connection.watch("room_state", { endpoint, room: name, limit: MESSAGES_SHOWN });
  }

  #list({ rows, matched, total }) {
    this.#listed = rows;
    const table = $("rooms-rows").parentElement;
    table.classList.toggle("histories", rows.some(({ history }) => history !== undefined));
    table.classList.toggle("owners", rows.some(({ owner }) => owner));
    this.#rows.show(rows);
    this.#refreshRoving();
    // Over several workers, the number of rooms that the filter leaves out is not known.
    const isAll = matched === total || total === null;
    const found = isAll ? plural(matched, "room") : `${count(matched)} of ${plural(total, "room")}`;
    setText($("rooms-count"), rows.length < matched ? `${found}, the first ${rows.length} shown` : found);
    $("no-rooms").hidden = rows.length > 0;
    setText($("no-rooms"), total === null || total ? "No room matches." : "There are no rooms. A room is created when a session joins it.");
  }

  #create(room) {
    const button = make("button", { type: "button", className: "name link", textContent: room.name });
    const row = make(
      "tr",
      { className: "choosable" },
      make("th", { scope: "row", className: "title" }, button),
      make("td", { textContent: room.endpoint, "data-label": "Endpoint" }),
      make("td", { className: "number", "data-label": "Members" }),
      make("td", { className: "number history", "data-label": "History" }),
      make("td", { className: "number owner", "data-label": "Owner" }),
      make("td", { className: "number owner", "data-label": "Tick late by" }),
      make("td", { className: "number owner", "data-label": "Posts waiting" }),
    );
    row.addEventListener("click", () => {
      if (getSelection().isCollapsed) this.choose(room);
    });
    return row;
  }

  #update(row, room) {
    const isChosen = this.#chosen !== null && keyOf(room) === keyOf(this.#chosen);
    row.classList.toggle("chosen", isChosen);
    row.querySelector("button").setAttribute("aria-pressed", isChosen);
    const { members, history, owner } = room;
    const texts = [members, history].map((number) => (number === undefined ? "" : count(number)));
    texts.push(...(owner ? [workerOf(owner), owner.tick_lag_s === null ? "" : seconds(owner.tick_lag_s), count(owner.posts_waiting)] : ["", "", ""]));
    texts.forEach((text, index) => setText(row.cells[index + 2], text));
  }

  /** Open the view of a room, { endpoint, name }; null closes it. */
  choose(room) {
    const aside = $("room");
    const hadFocus = aside.contains(document.activeElement);
    this.#chosen = room;
    this.#rows.show(this.#listed);
    aside.hidden = room === null;
    aside.parentElement.classList.toggle("looking", room !== null);
    if (room === null) {
      for (const list of LISTS_OF_ONE) this.#connection.unwatch(list);
      if (hadFocus) $("rooms-rows").querySelector("button[tabindex='0']")?.focus();
      return;
    }
    this.#build(room);
    this.#watchMembers();
  }

  #build(room) {
    const message = make("textarea", { rows: 3, required: true, autocomplete: "off", "aria-label": `Message to all in ${room.name}` });
    const form = make("form", {}, message,
      make("div", { className: "buttons" }, make("button", { className: "small", textContent: "Broadcast" })));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { ok, text } = await this.#connection.request({
        type: "broadcast", endpoint: room.endpoint, room: room.name, message: message.value,
      });
      toast(text || (ok ? "Sent." : "That did not work."), !ok);
      if (ok) message.value = "";
    });
    const list = make("ul", { className: "members" });
    const members = new Rows(list, {
      key: ({ id }) => id,
      create: ({ id }) => make("li", {},
        make("button", { type: "button", className: "link", onclick: () => this.#onSession(id) }), " ", make("span", { className: "soft" })),
      update: (item, session) => {
        setText(item.firstElementChild, nameOf(session));
        setText(item.lastElementChild, `${session.address}, for ${age(this.#connection.now() - session.since)}`);
      },
    });
    const title = make("h2", { tabIndex: -1, textContent: room.name });
    const persons = this.#makePersons(room);
    const state = makeRoomState(this.#connection, room);
    this.#parts = { members, persons, state, count: make("p", { className: "soft" }), shown: { members: [], persons: [] } };
    $("room").replaceChildren(
      make("div", { className: "aside-head" }, title,
        make("button", { type: "button", className: "small quiet back", textContent: "✕", "aria-label": "Close this view", onclick: () => this.choose(null) })),
      make("p", { className: "soft mono", textContent: room.endpoint }),
      make("div", { className: "buttons" },
        make("button", { type: "button", className: "small danger", textContent: "Close room …", onclick: () => this.#close(room) })),
      state.facts,
      persons.element,
      ...state.parts,
      make("h3", { textContent: "Broadcast to all members" }),
      form,
      make("h3", { textContent: "Members" }),
      list,
      this.#parts.count,
      make("button", { type: "button", className: "small quiet", textContent: "Show them under Sessions", onclick: () => this.#onMembers(room) }),
    );
    title.focus({ preventScroll: matchMedia("(min-width: 60rem)").matches });
  }

  #listMembers({ rows, matched }) {
    if (!this.#isShown || this.#chosen === null) return;
    const { members, count: more, shown } = this.#parts;
    shown.members = rows;
    members.show(rows);
    setText(more, matched === 0 ? "No members." : rows.length < matched ? `and ${count(matched - rows.length)} more` : "");
  }

  // Who is there: hidden in a room without presence.
  #makePersons({ endpoint }) {
    const list = make("ul", { className: "members persons" });
    const title = make("h3", { textContent: "Who is there" });
    const more = make("p", { className: "soft" });
    const rows = new Rows(list, {
      key: ({ key }) => key,
      create: ({ key, user }) => make("li", {},
        make("button", {
          type: "button", className: "link", textContent: user ?? key.slice(0, 8),
          onclick: () => (user === null ? this.#onSession(key) : this.#onUser({ endpoint, user })),
        }),
        " ", make("span", { className: "soft" }),
        make("details", {}, make("summary", { className: "soft", textContent: "Presence" }), make("pre", { className: "mono" }))),
      update: (item, { since, sessions, presence }) => {
        const [, facts, value] = item.children;
        setText(facts, `${sessions ? plural(sessions, "session") : "connection lost"}, since ${clock(since)}, for ${age(this.#connection.now() - since)}`);
        setText(value.lastElementChild, presence);
      },
    });
    return { element: make("section", { className: "who", hidden: true }, title, list, more), title, rows, more };
  }

  #listPersons({ endpoint, name, rows, matched }) {
    if (!this.#isShown || this.#chosen === null || keyOf({ endpoint, name }) !== keyOf(this.#chosen)) return;
    const { persons } = this.#parts;
    persons.element.hidden = matched === 0;
    setText(persons.title, `Who is there: ${count(matched)}`);
    this.#parts.shown.persons = rows;
    persons.rows.show(rows);
    setText(persons.more, rows.length < matched ? `and ${count(matched - rows.length)} more` : "");
  }

  #showState(message) {
    if (!this.#isShown || this.#chosen === null || keyOf(message) !== keyOf(this.#chosen)) return;
    this.#parts.state.update(message);
  }

  // The server sends a list only after a change; the ages are updated here.
  #tick() {
    if (!this.#isShown || this.#chosen === null) return;
    const { members, persons, shown } = this.#parts;
    members.show(shown.members);
    persons.rows.show(shown.persons);
  }

  async #close({ endpoint, name }) {
    const chosen = await askForClose(`Close all sessions in the room ${name}`, CODES, CODE_PATTERN);
    if (!chosen) return;
    const { ok, text } = await this.#connection.request({ type: "close_room", endpoint, room: name, ...chosen });
    toast(text || (ok ? "Done." : "That did not work."), !ok);
  }
}
