// The console: exceptions of handlers, their console and log output, and reloads, with file and line.

import { $, copyButton, debounced, make, onNextFrame, setText } from "../dom.js";
import { clock, count, place, plural } from "../format.js";
import { Rows } from "../rows.js";

const LEVELS = ["debug", "info", "warning", "error"];
const KEPT = 1000;
const SHOWN = 300;

/** A group as text, for a bug report. */
function asText({ last: event, count: times }) {
  const head = `${clock(event.at)} ${event.level}${times > 1 ? ` ×${times}` : ""} ${place(event)} ${event.text}`;
  return [head, event.detail].filter(Boolean).join("\n");
}

/**
 * Group events that differ only in time and session. All equal errors and warnings form one group, at the place of the
 * last one. Other events are grouped only if they follow each other directly.
 */
function grouped(events) {
  const groups = new Map(); // in order
  let before = null;
  for (const event of events) {
    const same = sameness(event);
    const isSevere = ["error", "warning"].includes(event.level);
    const name = isSevere ? same : before?.same === same ? before.name : event.key;
    const group = groups.get(name) ?? { key: event.key, name, same, first: event, count: 0 };
    groups.delete(name);
    groups.set(name, group);
    group.last = event;
    group.count += 1;
    before = group;
  }
  return [...groups.values()];
}

// A text that is the same for equal events. The session's id in an error's text makes no difference.
function sameness(event) {
  event.same ??= JSON.stringify([
    event.level, event.kind, place(event), event.endpoint, event.session ? event.text.replaceAll(event.session, "") : event.text,
  ]);
  return event.same;
}

export class Console {
  #events = [];
  #process = null;
  #isShown = false;
  #isPaused = false;
  #waiting = 0; // events that arrived during the pause
  #dropped = 0;
  #unseen = 0; // errors since the tab was last visible
  #isNew = false; // false for the first events, which are older than this page
  #onSession;
  #draw = onNextFrame(() => this.#drawNow());
  #rows = new Rows($("console-lines"), {
    key: ({ key }) => key, create: (group) => this.#line(group), update: (line, group) => this.#updates.get(line)(group),
  });
  #updates = new WeakMap(); // line -> its update function

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

  // A new process numbers its events from 1 again. The old process's events stay visible.
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
    const errors = fresh.filter(({ kind, level }) => level === "error" && kind !== "reload"); // reloads are shown elsewhere
    if (errors.length && !(this.#isShown && !document.hidden)) this.#tell(errors, this.#isNew);
    this.#isNew = true;
    this.#draw();
  }

  #lastNumber() {
    const last = this.#events.at(-1);
    return last && !last.isOld ? last.n : 0;
  }

  // Show the number of unseen errors on the tab, and a new error at the bottom of the page.
  #tell(errors, isNews) {
    this.#unseen += errors.length;
    const last = errors.at(-1);
    $("unseen").hidden = false;
    setText($("unseen"), this.#unseen > 99 ? "99+" : this.#unseen);
    $("unseen").setAttribute("aria-label", plural(this.#unseen, "unseen error"));
    if (!isNews) return;
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
    this.#rows.show([]);
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
    const groups = grouped(found);
    const shown = groups.slice(-SHOWN);
    const list = $("console-lines");
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    this.#rows.show(shown);
    if (isAtEnd) list.scrollTop = list.scrollHeight;
    $("no-lines").hidden = this.#events.length > 0;
    list.hidden = this.#events.length === 0;
    const parts = [found.length === this.#events.length ? plural(found.length, "line") : `${count(found.length)} of ${plural(this.#events.length, "line")}`];
    if (this.#dropped) parts.push(`${count(this.#dropped)} more were dropped because they came too fast`);
    setText($("console-count"), parts.join("; "));
  }

  /** Make the line of a group. It shows the number of events, and the last one's time and session. */
  #line({ last: event }) {
    let group = null;
    const where = place(event);
    const time = make("time");
    const times = make("span", { className: "times" });
    const session = make("button", { type: "button", className: "link", onclick: () => this.#onSession(group.last.session) });
    const text = event.detail
      ? make("details", {}, make("summary", { className: "text", textContent: event.text }),
        make("pre", { className: "stack", textContent: event.detail }))
      : make("span", { className: "text", textContent: event.text });
    const element = make(
      "li",
      { className: event.level },
      time,
      make("span", { className: `level ${event.level}` }, event.level, " ", times),
      make("div", { className: "body" },
        text,
        make("span", { className: "from soft" },
          where && make("span", { className: "mono place", textContent: where }),
          event.endpoint && make("span", { className: "mono", textContent: event.endpoint }),
          event.session && session)),
      copyButton(() => asText(group)),
    );
    this.#updates.set(element, (now) => {
      group = now;
      setText(time, clock(now.last.at));
      time.title = new Date(now.last.at * 1000).toLocaleString();
      setText(times, now.count > 1 ? `×${count(now.count)}` : "");
      times.title = now.count > 1 ? `since ${clock(now.first.at)}` : "";
      setText(session, `session ${(now.last.session ?? "").slice(0, 8)}`);
    });
    return element;
  }
}
