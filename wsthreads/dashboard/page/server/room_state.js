// What the chosen room holds: its owner, its attributes and its history. The content of a message comes on a click.

import { make, setText } from "../dom.js";
import { bytes, clock, count, plural, seconds } from "../format.js";
import { Rows } from "../rows.js";
import { workerOf } from "./workers.js";

const ATTRIBUTES_SHOWN = 100; // as many as the server sends
export const MESSAGES_SHOWN = 50;

/** A fold with a text below its title. `onOpen(text)` is called when it is opened for the first time. */
function fold(title, onOpen) {
  const text = make("pre", { className: "mono" });
  const details = make("details", {}, make("summary", { textContent: title }), text);
  if (onOpen) details.addEventListener("toggle", () => onOpen(text), { once: true });
  return details;
}

/** A part of the view, with a title, a list and a line below it; hidden until it has something to show. */
function makePart(itemsOf) {
  const list = make("ul", { className: "folds" });
  const title = make("h3");
  const note = make("p", { className: "soft" });
  const element = make("section", { className: "holds", hidden: true }, title, list, note);
  const rows = new Rows(list, itemsOf);
  return {
    element,
    show(isShown, text, items, line) {
      element.hidden = !isShown;
      setText(title, text);
      rows.show(items);
      setText(note, line);
    },
  };
}

/** Returns { facts, parts, update }. `update(message)` shows what the server tells of `room`, { endpoint, name }. */
export function makeRoomState(connection, { endpoint, name }) {
  const facts = make("dl", { className: "facts", hidden: true });
  const attributes = makePart({
    key: ({ key }) => key,
    create: ({ key }) => make("li", {}, fold(key)),
    update: (item, { value }) => setText(item.querySelector("pre"), value),
  });
  const history = makePart({
    key: ({ number }) => number,
    create: (message) => make("li", {}, fold(titleOf(message), (text) => read(message.number, text))),
    update: () => {}, // a message does not change
  });

  const titleOf = ({ at, bytes: size, is_text: isText }) => `${clock(at)}, ${bytes(size)}${isText ? "" : ", binary"}`;

  async function read(number, element) {
    setText(element, "…");
    const { ok, text } = await connection.request({ type: "read_message", endpoint, room: name, number });
    setText(element, text || (ok ? "(empty)" : "The server did not answer."));
    element.classList.toggle("bad", !ok);
  }

  function showOwner({ is_owned: isOwned, owner }) {
    const lines = !isOwned ? [] : owner === null ? [["Owner", "none at present"]] : [
      ["Owner", `process ${workerOf(owner)}`],
      ["Ownership", `number ${owner.fencing_number}`],
      ["Posts waiting", count(owner.posts_waiting)],
      ...(owner.tick_lag_s === null ? [] : [["Last tick late by", seconds(owner.tick_lag_s)]]),
    ];
    facts.hidden = lines.length === 0;
    if (facts.children.length !== 2 * lines.length) {
      facts.replaceChildren(...lines.flatMap(() => [make("dt"), make("dd")]));
    }
    lines.flat().forEach((text, index) => setText(facts.children[index], text));
  }

  function showAttributes(found) {
    if (found === null || found.error) {
      attributes.show(found !== null, "Attributes", [], found?.error ?? "");
      return;
    }
    const more = found.count - found.rows.length;
    attributes.show(found.count > 0, `Attributes: ${count(found.count)}, ${bytes(found.bytes)}`, found.rows.slice(0, ATTRIBUTES_SHOWN),
      more > 0 ? `and ${count(more)} more` : "");
  }

  function showHistory(found) {
    if (found === null || found.error) {
      history.show(found !== null, "History", [], found?.error ?? "");
      return;
    }
    const title = `History: ${found.is_all ? "" : "at least "}${plural(found.messages, "message")}, ${bytes(found.bytes)}`;
    const more = found.messages - found.rows.length;
    history.show(true, title, found.rows, more > 0 ? `and ${count(more)} older ones` : found.messages ? "" : "No messages.");
  }

  return {
    facts,
    parts: [attributes.element, history.element],
    update(message) {
      showOwner(message);
      showAttributes(message.attributes);
      showHistory(message.history);
    },
  };
}
