// The rooms: number of members, list of members, and a form for a broadcast.

import { $, debounced, make, setOptions, setText } from "../dom.js";
import { age, count, plural } from "../format.js";
import { toast } from "../dialogs.js";
import { rove } from "../roving.js";
import { Rows } from "../rows.js";
import { nameOf } from "./sessions.js";

const LIMIT = 200;
const MEMBERS_SHOWN = 20;

const keyOf = ({ endpoint, name }) => JSON.stringify([endpoint, name]);

export class Rooms {
  #connection;
  #onSession;
  #onMembers;
  #isShown = false;
  #chosen = null; // { endpoint, name }
  #listed = [];
  #rows;
  #members = null; // the Rows of the chosen room
  #refreshRoving;

  /** `onSession(id)` is called to open a member's session, `onMembers(room)` to list all members of a room. */
  constructor(connection, { onSession, onMembers }) {
    this.#connection = connection;
    this.#onSession = onSession;
    this.#onMembers = onMembers;
    this.#rows = new Rows($("rooms-rows"), { key: keyOf, create: (room) => this.#create(room), update: (row, room) => this.#update(row, room) });
    this.#refreshRoving = rove($("rooms-rows"), "button.name");
    $("rooms-filter").addEventListener("input", debounced(() => this.#watch(), 200));
    $("rooms-endpoint").addEventListener("change", () => this.#watch());
    connection.on("rooms", (message) => this.#list(message));
    connection.on("sessions", (message) => this.#listMembers(message));
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
    this.#connection.unwatch("rooms");
    this.#connection.unwatch("sessions");
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
  }

  #list({ rows, matched, total }) {
    this.#listed = rows;
    this.#rows.show(rows);
    this.#refreshRoving();
    const found = matched === total ? plural(total, "room") : `${count(matched)} of ${plural(total, "room")}`;
    setText($("rooms-count"), rows.length < matched ? `${found}, the first ${rows.length} shown` : found);
    $("no-rooms").hidden = rows.length > 0;
    setText($("no-rooms"), total ? "No room matches." : "There are no rooms. A room is created when a session joins it.");
  }

  #create(room) {
    const button = make("button", { type: "button", className: "name link", textContent: room.name });
    const row = make(
      "tr",
      { className: "choosable" },
      make("th", { scope: "row", className: "title" }, button),
      make("td", { textContent: room.endpoint, "data-label": "Endpoint" }),
      make("td", { className: "number", "data-label": "Members" }),
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
    setText(row.cells[2], count(room.members));
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
      this.#connection.unwatch("sessions");
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
    this.#members = new Rows(list, {
      key: ({ id }) => id,
      create: ({ id }) => make("li", {},
        make("button", { type: "button", className: "link", onclick: () => this.#onSession(id) }), " ", make("span", { className: "soft" })),
      update: (item, session) => {
        setText(item.firstElementChild, nameOf(session));
        setText(item.lastElementChild, `${session.address}, for ${age(this.#connection.now() - session.since)}`);
      },
    });
    const title = make("h2", { tabIndex: -1, textContent: room.name });
    this.count = make("p", { className: "soft" });
    $("room").replaceChildren(
      make("div", { className: "aside-head" }, title,
        make("button", { type: "button", className: "small quiet back", textContent: "✕", "aria-label": "Close this view", onclick: () => this.choose(null) })),
      make("p", { className: "soft mono", textContent: room.endpoint }),
      make("h3", { textContent: "Broadcast to all members" }),
      form,
      make("h3", { textContent: "Members" }),
      list,
      this.count,
      make("button", { type: "button", className: "small quiet", textContent: "Show them under Sessions", onclick: () => this.#onMembers(room) }),
    );
    title.focus({ preventScroll: matchMedia("(min-width: 60rem)").matches });
  }

  #listMembers({ rows, matched }) {
    if (!this.#isShown || this.#chosen === null) return;
    this.#members.show(rows);
    setText(this.count, matched === 0 ? "No members in this process." : rows.length < matched ? `and ${count(matched - rows.length)} more` : "");
  }
}
