// The log of one connection: direction, time, size and content of each message, and events of the connection.

import { copyButton, make, onNextFrame } from "../dom.js";
import { bytes, clock } from "../format.js";
import { dump, preview } from "./hex.js";
import { oneLine, parseJson, tree } from "./json.js";

const KEPT = 300;

// A longer text is folded.
const SHOWN_CHARACTERS = 2000;

const SIGNS = { in: ["←", "received"], out: ["→", "sent"], note: ["·", ""], bad: ["✕", ""] };

export class Frames {
  #waiting = [];
  #isOpen;
  #draw = onNextFrame(() => this.#drawNow());

  /** `isJsonOpen()` says whether JSON is shown unfolded. */
  constructor(label, isJsonOpen) {
    this.#isOpen = isJsonOpen;
    this.element = make("ol", { className: "frames", tabIndex: 0, role: "log", "aria-live": "off", "aria-label": label });
  }

  /** A message that was sent ("out") or received ("in"): a text, or bytes. */
  add(direction, data) {
    this.#push({ direction, data, size: typeof data === "string" ? new TextEncoder().encode(data).length : data.length });
  }

  /** An event of the connection; `isBad` marks a failure. */
  note(text, isBad = false) {
    this.#push({ direction: isBad ? "bad" : "note", data: text, size: null });
  }

  clear() {
    this.#waiting = [];
    this.element.replaceChildren();
  }

  #push(frame) {
    this.#waiting.push({ ...frame, at: Date.now() / 1000 });
    // Many messages are drawn once per animation frame, and only those that will stay.
    if (this.#waiting.length > KEPT) this.#waiting.shift();
    this.#draw();
  }

  #drawNow() {
    const list = this.element;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...this.#waiting.splice(0).map((frame) => this.#line(frame)));
    while (list.children.length > KEPT) list.firstElementChild.remove();
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }

  #line({ direction, data, size, at }) {
    const [sign, words] = SIGNS[direction];
    return make(
      "li",
      { className: direction },
      make("span", { className: "sign", "aria-hidden": "true", textContent: sign }),
      words && make("span", { className: "for-readers", textContent: words }),
      make("div", { className: "content" },
        make("span", { className: "meta" },
          size !== null && copyButton(() => (typeof data === "string" ? data : dump(data))),
          size !== null && make("span", { className: "size", textContent: bytes(size) }),
          make("time", { textContent: clock(at, { milliseconds: true }) })),
        this.#content(direction, data)),
    );
  }

  #content(direction, data) {
    if (direction === "note" || direction === "bad") return make("span", { className: "text", textContent: data });
    if (typeof data !== "string") return unfolding(`binary: ${preview(data)}`, () => make("pre", { textContent: dump(data) }));
    const value = data.length < 200_000 ? parseJson(data) : undefined;
    if (value !== undefined) return unfolding(oneLine(value), () => tree(value), this.#isOpen());
    if (data.length <= SHOWN_CHARACTERS) return make("span", { className: "text", textContent: data });
    const start = data.slice(0, SHOWN_CHARACTERS);
    return unfolding(`${start} …`, () => make("span", { className: "text", textContent: data.slice(start.length, 200_000) }));
  }
}

/** A line that unfolds. `makeRest` makes its content at the first unfolding. */
function unfolding(text, makeRest, isOpen = false) {
  const details = make("details", { open: isOpen }, make("summary", { textContent: text }));
  const fill = () => {
    if (details.open && details.children.length === 1) details.append(makeRest());
  };
  details.addEventListener("toggle", fill);
  fill();
  return details;
}
