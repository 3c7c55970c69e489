// What handlers throw and write: exceptions, console and log lines, reloads, with file and line.

import { $, copyButton, debounced, make, onNextFrame, setText } from "../dom.js";
import { clock, count, place, plural } from "../format.js";

const LEVELS = ["debug", "info", "warning", "error"];
const KEPT = 1000;
const SHOWN = 300;

/** The text that one would put into a report. */
function asText(event) {
  return [`${clock(event.at)} ${event.level} ${place(event)} ${event.text}`, event.detail].filter(Boolean).join("\n");
}

export class Console {
  #events = [];
  #process = null;
  #isShown = false;
  #isPaused = false;
  #waiting = 0; // events that came while it was paused
  #dropped = 0;
  #unseen = 0; // errors since one was here
  #isNew = false; // the first events are those from before this page came, and no news
  #onSession;
  #draw = onNextFrame(() => this.#drawNow());
  #elements = new Map(); // n -> its line, so that an unfolded stack stays so

  /** `onSession(id)` is called for the session of a line. */
  constructor(connection, onSession) {
    this.#onSession = onSession;
    connection.on("hello", ({ pid, started }) => this.#meet(`${pid} ${started}`));
    connection.on("events", (message) => this.#take(message));
    $("console-level").addEventListener("change", () => this.#refilter());
    $("console-filter").addEventListener("input", debounced(() => this.#refilter(), 150));
    $("console-pause").addEventListener("click", () => this.#pause(!this.#isPaused));
    $("console-clear").addEventListener("click", () => {
      this.#events = [];
      this.#dropped = 0;
      this.#refilter();
    });
    $("latest-dismiss").addEventListener("click", () => this.#see());
  }

  show() {
    this.#isShown = true;
    this.#see();
    this.#draw();
  }

  hide() {
    this.#isShown = false;
  }

  // Another process counts its events from 1 again; what the one before it said may still be of interest.
  #meet(process) {
    if (this.#process !== null && process !== this.#process) {
      for (const event of this.#events) event.isOld = true;
    }
    this.#process = process;
  }

  #take({ events, dropped = 0 }) {
    const fresh = events.filter(({ n }) => n > this.#lastNumber());
    for (const event of fresh) event.key = `${this.#process} ${event.n}`;
    this.#events.push(...fresh);
    this.#events.splice(0, this.#events.length - KEPT);
    this.#dropped += dropped;
    if (this.#isPaused) this.#waiting += fresh.length;
    const errors = fresh.filter(({ kind, level }) => level === "error" && kind !== "reload"); // these have a place of their own
    if (errors.length && this.#isNew && !(this.#isShown && !document.hidden)) this.#tell(errors);
    this.#isNew = true;
    this.#draw();
  }

  #lastNumber() {
    const last = this.#events.at(-1);
    return last && !last.isOld ? last.n : 0;
  }

  #tell(errors) {
    this.#unseen += errors.length;
    const last = errors.at(-1);
    $("unseen").hidden = false;
    setText($("unseen"), this.#unseen > 99 ? "99+" : this.#unseen);
    $("unseen").setAttribute("aria-label", plural(this.#unseen, "new error"));
    setText($("latest-place"), place(last) || (last.endpoint ?? ""));
    setText($("latest-text"), last.text);
    $("latest").hidden = false;
  }

  #see() {
    this.#unseen = 0;
    $("unseen").hidden = true;
    $("latest").hidden = true;
  }

  #pause(isPaused) {
    this.#isPaused = isPaused;
    this.#waiting = 0;
    $("console-pause").setAttribute("aria-pressed", isPaused);
    this.#draw();
  }

  #refilter() {
    this.#elements.clear();
    $("console-lines").replaceChildren();
    this.#waiting = 0;
    this.#drawNow();
  }

  #matches(event, level, text) {
    if (LEVELS.indexOf(event.level) < level) return false;
    if (text === "") return true;
    return [event.text, event.file, event.endpoint, event.session, event.detail].some((part) => part?.toLowerCase().includes(text));
  }

  #drawNow() {
    setText($("console-pause"), this.#isPaused ? `Resume${this.#waiting ? ` (${count(this.#waiting)} new)` : ""}` : "Pause");
    if (!this.#isShown || (this.#isPaused && this.#waiting)) return;
    const level = LEVELS.indexOf($("console-level").value);
    const text = $("console-filter").value.trim().toLowerCase();
    const found = this.#events.filter((event) => this.#matches(event, level, text));
    const shown = found.slice(-SHOWN);
    const list = $("console-lines");
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const keys = new Set(shown.map(({ key }) => key));
    for (const [key, element] of this.#elements) {
      if (keys.has(key)) continue;
      element.remove();
      this.#elements.delete(key);
    }
    for (const event of shown) {
      if (this.#elements.has(event.key)) continue;
      const line = this.#line(event);
      this.#elements.set(event.key, line);
      list.append(line);
    }
    if (isAtEnd) list.scrollTop = list.scrollHeight;
    $("no-lines").hidden = this.#events.length > 0;
    list.hidden = this.#events.length === 0;
    const parts = [found.length === this.#events.length ? plural(found.length, "line") : `${count(found.length)} of ${plural(this.#events.length, "line")}`];
    if (this.#dropped) parts.push(`${count(this.#dropped)} more were left out, as they came too fast`);
    setText($("console-count"), parts.join("; "));
  }

  #line(event) {
    const where = place(event);
    const text = event.detail
      ? make("details", {}, make("summary", { className: "text", textContent: event.text }),
        make("pre", { className: "stack", textContent: event.detail }))
      : make("span", { className: "text", textContent: event.text });
    return make(
      "li",
      { className: event.level },
      make("time", { textContent: clock(event.at), title: new Date(event.at * 1000).toLocaleString() }),
      make("span", { className: `level ${event.level}`, textContent: event.level }),
      make("div", { className: "body" },
        text,
        make("span", { className: "from soft" },
          where && make("span", { className: "mono place", textContent: where }),
          event.endpoint && make("span", { className: "mono", textContent: event.endpoint }),
          event.session && make("button", {
            type: "button", className: "link", textContent: `session ${event.session.slice(0, 8)}`, onclick: () => this.#onSession(event.session),
          }))),
      copyButton(asText(event)),
    );
  }
}
