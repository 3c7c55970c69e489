// The open sessions. The server filters, sorts and limits the list, so any number of sessions works.

import { $, debounced, make, setOptions, setText } from "../dom.js";
import { age, bytes, count, plural, seconds } from "../format.js";
import { toast } from "../dialogs.js";
import { rove } from "../roving.js";
import { Rows } from "../rows.js";
import { workerOf } from "./workers.js";

const COLUMNS = [
  { label: "Session" },
  { label: "Endpoint" },
  { label: "Rooms" },
  { label: "Address" },
  { label: "Open for", sort: "since", isNumber: true },
  { label: "Received", sort: "messages_in", isNumber: true },
  { label: "Sent", sort: "messages_out", isNumber: true },
  { label: "Waiting", sort: "bytes_waiting", isNumber: true },
  { label: "Ping", sort: "round_trip_s", isNumber: true },
  { label: "Worker", className: "worker" },
];

// For phones, where the table has no head to click.
const ORDERS = [
  ["newest", "since", "descending"],
  ["oldest", "since", "ascending"],
  ...COLUMNS.slice(5).filter(({ sort }) => sort).flatMap(({ label, sort }) => [
    [`${label.toLowerCase()}, most`, sort, "descending"],
    [`${label.toLowerCase()}, least`, sort, "ascending"],
  ]),
];

/** A session's name: its user, or the beginning of its id. */
export function nameOf({ id, user }) {
  return user || id.slice(0, 8);
}

/** Whether a session is open and has a connection. */
export function isActive({ open, connected }) {
  return open && connected !== false;
}

/** How long a session has been open; or its state, if it closes, or if it has lost its connection. */
export function stateOf({ open, connected, since }, now) {
  if (!open) return "closing";
  return connected === false ? "suspended" : age(now - since);
}

/** A form that sends a message. `target()` says to whom: { endpoint, session } or { endpoint, user }. */
export function sendForm(connection, label, target) {
  const message = make("textarea", { rows: 2, required: true, autocomplete: "off", "aria-label": label });
  const form = make("form", {}, message, make("div", { className: "buttons" }, make("button", { className: "small", textContent: "Send" })));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { ok, text } = await connection.request({ type: "send", ...target(), message: message.value });
    toast(text || (ok ? "Sent." : "That did not work."), !ok);
    if (ok) message.value = "";
  });
  return form;
}

/** A short list of a session's rooms. */
function roomsOf({ rooms, room_count: total }) {
  const more = (total ?? rooms.length) - rooms.length;
  return rooms.join(", ") + (more > 0 ? ` and ${more} more` : "");
}

const classOf = ({ isNumber, className }) => [isNumber && "number", className].filter(Boolean).join(" ");

export class Sessions {
  #connection;
  #onChoose;
  #isShown = false;
  #room = null; // { endpoint, name }: list only its members
  #sort = "since";
  #descending = true;
  #chosen = null; // an id
  #rows;
  #listed = [];
  #refreshRoving;

  /** `onChoose(id)` is called to open a session. */
  constructor(connection, onChoose) {
    this.#connection = connection;
    this.#onChoose = onChoose;
    this.#rows = new Rows($("sessions-rows"), { key: ({ id }) => id, create: (item) => this.#create(item), update: (row, item) => this.#update(row, item) });
    this.#refreshRoving = rove($("sessions-rows"), "button.name");
    this.#makeHead();
    $("sessions-sort").append(...ORDERS.map(([text, sort, way]) => new Option(text, `${sort} ${way}`)));
    $("sessions-sort").addEventListener("change", () => {
      const [sort, way] = $("sessions-sort").value.split(" ");
      this.#sortBy(sort, way === "descending");
    });
    $("sessions-filter").addEventListener("input", debounced(() => this.#watch(), 200));
    for (const id of ["sessions-endpoint", "sessions-limit"]) $(id).addEventListener("change", () => this.#watch());
    $("sessions-room").addEventListener("click", () => this.inRoom(null));
    connection.on("sessions", (message) => this.#list(message));
    connection.on("sample", () => this.#tick());
  }

  show() {
    this.#isShown = true;
    this.#watch();
  }

  hide() {
    this.#isShown = false;
    this.#connection.unwatch("sessions");
  }

  endpoints(paths) {
    setOptions($("sessions-endpoint"), paths, 1);
  }

  /** Show the members of a room only, { endpoint, name }; with null, all again. */
  inRoom(room) {
    this.#room = room;
    const button = $("sessions-room");
    button.hidden = room === null;
    $("sessions-endpoint").disabled = room !== null;
    $("sessions-endpoint").value = room?.endpoint ?? "";
    setText(button, room ? `in room ${room.name} ✕` : "");
    button.setAttribute("aria-label", room ? `Show all rooms, not only ${room.name}` : "");
    this.#watch();
  }

  /** Mark the session whose view is open. */
  mark(id) {
    this.#chosen = id;
    this.#rows.show(this.#listed);
  }

  #watch() {
    if (!this.#isShown) return;
    this.#connection.watch("sessions", {
      filter: $("sessions-filter").value.trim().slice(0, 200),
      endpoint: $("sessions-endpoint").value || null,
      room: this.#room?.name ?? null,
      sort: this.#sort,
      descending: this.#descending,
      limit: Number($("sessions-limit").value),
    });
  }

  #makeHead() {
    $("sessions-head").replaceChildren(...COLUMNS.map((column) => {
      const { label, sort } = column;
      const head = make("th", { scope: "col", className: classOf(column) });
      if (sort) {
        head.dataset.sort = sort;
        head.append(make("button", { type: "button", className: "sort", textContent: label, onclick: () => this.#sortBy(sort) }));
      } else {
        head.textContent = label;
      }
      return head;
    }));
    this.#showSort();
  }

  #sortBy(sort, descending = sort === this.#sort ? !this.#descending : true) {
    this.#descending = descending;
    this.#sort = sort;
    this.#showSort();
    this.#watch();
  }

  #showSort() {
    $("sessions-sort").value = `${this.#sort} ${this.#descending ? "descending" : "ascending"}`;
    for (const head of $("sessions-head").cells) {
      if (head.dataset.sort !== this.#sort) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.#descending ? "descending" : "ascending");
    }
  }

  #list({ rows, matched, total, processes }) {
    if (!this.#isShown) return; // this list was requested for a room's members
    this.#listed = rows;
    this.#rows.show(rows);
    this.#refreshRoving();
    $("sessions-rows").parentElement.classList.toggle("workers", processes > 1);
    const workers = processes > 1 ? ` in ${plural(processes, "worker")}` : "";
    const found = (matched === total ? plural(total, "session") : `${count(matched)} of ${plural(total, "session")}`) + workers;
    setText($("sessions-count"), rows.length < matched ? `${found}, the first ${rows.length} shown` : found);
    $("no-sessions").hidden = rows.length > 0;
    setText($("no-sessions"), total ? "No session matches." : "No client is connected. Open some connections under Client.");
  }

  #create(item) {
    const button = make("button", { type: "button", className: "name link" });
    const row = make(
      "tr",
      { className: "choosable" },
      make("th", { scope: "row", className: "title" }, button, make("span", { className: "soft mono id", textContent: item.id.slice(0, 8) })),
      ...COLUMNS.slice(1).map((column) => make("td", { className: classOf(column), "data-label": column.label })),
    );
    // A click anywhere in the row opens the session, except one that ends a text selection.
    row.addEventListener("click", () => {
      if (getSelection().isCollapsed) this.#onChoose(item.id);
    });
    return row;
  }

  #update(row, item) {
    const [name, endpoint, rooms, address, since, received, sent, waiting, ping, worker] = row.cells;
    const button = name.firstElementChild;
    setText(button, nameOf(item));
    name.lastElementChild.hidden = !item.user; // without a user, the id is the name
    button.setAttribute("aria-pressed", item.id === this.#chosen);
    row.classList.toggle("chosen", item.id === this.#chosen);
    row.classList.toggle("inactive", !isActive(item));
    setText(endpoint, item.endpoint);
    setText(rooms, roomsOf(item));
    rooms.title = rooms.textContent;
    setText(address, item.address);
    row.dataset.since = item.since;
    setText(since, stateOf(item, this.#connection.now()));
    setText(received, count(item.messages_in));
    received.title = bytes(item.bytes_in);
    setText(sent, count(item.messages_out));
    sent.title = bytes(item.bytes_out);
    setText(waiting, bytes(item.bytes_waiting));
    waiting.classList.toggle("warn", item.bytes_waiting > 0);
    setText(ping, seconds(item.round_trip_s));
    setText(worker, workerOf(item));
  }

  // The server sends the list only after a change; the ages are updated here.
  #tick() {
    if (!this.#isShown) return;
    for (const row of $("sessions-rows").rows) {
      if (!row.classList.contains("inactive")) setText(row.cells[4], age(this.#connection.now() - Number(row.dataset.since)));
    }
  }
}
