// The view of one user: the user's sessions, on all devices and in all workers, and buttons to kick and ban the user.

import { $, make, setText } from "../dom.js";
import { count } from "../format.js";
import { ask, CODES, CODE_PATTERN, toast } from "../dialogs.js";
import { Rows } from "../rows.js";
import { isActive, sendForm, stateOf } from "./sessions.js";
import { workerOf } from "./workers.js";

const SHOWN = 50;

export class UserView {
  #connection;
  #onSession;
  #onOpen;
  #user = null; // { endpoint, user }
  #isShown = false;
  #parts = null;

  /** `onSession(id)` is called to open one of the user's sessions, `onOpen()` before this view opens. */
  constructor(connection, { onSession, onOpen }) {
    this.#connection = connection;
    this.#onSession = onSession;
    this.#onOpen = onOpen;
    connection.on("user", (message) => this.#update(message));
    connection.on("sample", () => {
      if (this.#isShown && this.#user !== null) this.#parts.rows.show(this.#parts.shown); // the ages
    });
    $("user").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.choose(null);
    });
  }

  show() {
    this.#isShown = true;
    if (this.#user !== null) this.#watch();
  }

  hide() {
    this.#isShown = false;
    this.#connection.unwatch("user");
  }

  /** Open the view of a user, { endpoint, user }; null closes it. */
  choose(user) {
    const hadFocus = $("user").contains(document.activeElement);
    this.#user = user;
    $("user").hidden = true;
    this.#connection.unwatch("user");
    if (user === null) {
      $("user").parentElement.classList.remove("looking");
      if (hadFocus) $("sessions-rows").querySelector("button[tabindex='0']")?.focus();
      return;
    }
    this.#onOpen();
    this.#build();
    $("user").hidden = false;
    $("user").parentElement.classList.add("looking");
    if (this.#isShown) this.#watch();
    // On a phone, this view replaces the list, so the page scrolls to it.
    this.#parts.title.focus({ preventScroll: matchMedia("(min-width: 60rem)").matches });
  }

  get isOpen() {
    return this.#user !== null;
  }

  #watch() {
    this.#connection.watch("user", { ...this.#user, sort: "since", descending: true, limit: SHOWN });
  }

  #build() {
    const { endpoint, user } = this.#user;
    const list = make("ul", { className: "members" });
    this.#parts = {
      title: make("h2", { tabIndex: -1, textContent: user }),
      note: make("p", { className: "soft", role: "status" }),
      more: make("p", { className: "soft" }),
      shown: [],
      rows: new Rows(list, {
        key: ({ id }) => id,
        create: ({ id }) => make("li", {},
          make("button", { type: "button", className: "link mono", textContent: id.slice(0, 8), onclick: () => this.#onSession(id) }),
          " ", make("span", { className: "soft" })),
        update: (item, session) => setText(item.lastElementChild, [
          session.address, isActive(session) ? `for ${stateOf(session, this.#connection.now())}` : stateOf(session), workerOf(session),
        ].filter(Boolean).join(", ")),
      }),
    };
    $("user").replaceChildren(
      make("div", { className: "aside-head" }, this.#parts.title,
        make("button", { type: "button", className: "small quiet back", textContent: "✕", "aria-label": "Close this view", onclick: () => this.choose(null) })),
      make("p", { className: "soft mono", textContent: endpoint }),
      make("div", { className: "buttons" },
        make("button", { type: "button", className: "small quiet", textContent: "Kick user …", onclick: () => this.#kick(false) }),
        make("button", { type: "button", className: "small danger", textContent: "Ban user …", onclick: () => this.#kick(true) })),
      make("h3", { textContent: "Sessions" }),
      list,
      this.#parts.more,
      this.#parts.note,
      make("h3", { textContent: "Send to all of them" }),
      sendForm(this.#connection, `Message to ${user}`, () => this.#user),
    );
  }

  #update({ endpoint, user, rows, matched, processes }) {
    if (this.#user === null || user !== this.#user.user || endpoint !== this.#user.endpoint) return;
    this.#parts.shown = processes > 1 ? rows : rows.map((row) => ({ ...row, pid: undefined }));
    this.#parts.rows.show(this.#parts.shown);
    setText(this.#parts.more, rows.length < matched ? `and ${count(matched - rows.length)} more` : "");
    setText(this.#parts.note, matched ? "" : "This user has no sessions.");
  }

  async #kick(isBan) {
    const { endpoint, user } = this.#user;
    const typed = await ask({
      title: `${isBan ? "Ban" : "Kick"} the user ${user}?`,
      text: "The server closes all sessions of this user. " + (isBan
        ? "It refuses new sessions of the user with 403 until the time is over."
        : "The user can connect again at once. Well-behaved clients do not reconnect after 1008."),
      action: isBan ? "Ban" : "Kick",
      isDangerous: true,
      fields: [
        ...(isBan ? [{ name: "ban_s", label: "Seconds", value: "3600", inputMode: "numeric", pattern: "[1-9][0-9]*", required: true, title: "a whole number of seconds, at most a year" }] : []),
        { name: "code", label: `Code (${CODES})`, value: "1008", inputMode: "numeric", pattern: CODE_PATTERN, required: true, title: CODES },
        { name: "reason", label: "Reason", value: "", maxLength: 120 },
      ],
    });
    if (!typed) return;
    const { ok, text } = await this.#connection.request({
      type: "kick_user", endpoint, user, code: Number(typed.code), reason: typed.reason, ban_s: Number(typed.ban_s ?? 0),
    });
    toast(text || (ok ? "Done." : "That did not work."), !ok);
  }
}
