// The messages of the room, and notes between them.

import { $, element } from "./dom.js";

const MAX_LINES = 1000;

export function clear() {
  $("log").replaceChildren();
}

export function addNote(text) {
  add(element("li", "note", text), "");
}

/**
 * Add a message. `isOwn`: this page's user has sent it. A private message has `to`, and its name is a button for an
 * answer, which calls `reply` with the other person's name.
 */
export function addMessage({ type, from, to, text, timestamp }, isOwn, reply) {
  const isPrivate = type === "private";
  const line = element("li", ["message", isOwn && "own", isPrivate && "private"].filter(Boolean).join(" "), "");
  const name = element(isPrivate ? "button" : "span", "from", isOwn ? "You" : from);
  if (isPrivate) {
    const other = isOwn ? to : from;
    name.textContent += isOwn ? `, only to ${to}` : ", only to you";
    name.title = `Write to ${other} only`;
    name.addEventListener("click", () => reply(other));
  }
  const time = new Date(timestamp);
  const clock = element("time", "", time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  clock.dateTime = time.toISOString();
  line.append(name, element("p", "text", text), clock);
  add(line, JSON.stringify([from, isOwn, isPrivate && to]), isOwn);
}

function add(line, speaker, isOwn = false) {
  const log = $("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  line.dataset.speaker = speaker;
  line.classList.toggle("continued", Boolean(speaker) && log.lastElementChild?.dataset.speaker === speaker);
  log.append(line);
  while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  if (isAtEnd || isOwn) log.scrollTop = log.scrollHeight;
}
