// Who is in the room, and who of them is typing.

import { $, element } from "./dom.js";

let me = "";
let pick = null; // called with the name of a person whose button was pressed
let marked = "";
const persons = new Map(); // by key, in order of arrival, as in room.presence()
const items = new Map(); // the list's items, by the same keys

/** Begin with an empty list. It is shown when `set` was called. */
export function begin(user, onPick) {
  me = user;
  pick = onPick;
  set([]);
  $("here").hidden = true;
  $("people").textContent = `as ${me}`;
}

/** Replace all persons: after each connection, the server says who is there. */
export function set(people) {
  persons.clear();
  for (const person of people) persons.set(person.key, person);
  $("here").hidden = false;
  show();
}

/** Apply what the server's `onPresence` has returned. Returns the names of those who have come and gone. */
export function change({ joined, left, changed }) {
  const come = joined.filter(({ key }) => !persons.has(key)); // somebody may be in the first list and among these
  const gone = left.filter(({ key }) => persons.has(key));
  for (const person of [...joined, ...changed]) persons.set(person.key, person);
  for (const { key } of left) persons.delete(key);
  show();
  return { come: come.map(({ user }) => user), gone: gone.map(({ user }) => user) };
}

/** While there is no connection, nobody knows who is there. */
export function setUnknown() {
  $("people").textContent = `as ${me}`;
  $("typing").textContent = "";
  for (const item of items.values()) item.querySelectorAll("button").forEach((button) => (button.disabled = true));
}

/** The session continues: the server's next message says who has come and gone meanwhile. */
export function setKnown() {
  if (!$("here").hidden) show();
}

/** Mark the person who gets the next message, or nobody. */
export function mark(name) {
  marked = name;
  for (const [key, item] of items) item.querySelector("button")?.setAttribute("aria-pressed", key === marked);
}

function show() {
  $("people").textContent = `as ${me}, ${persons.size} here`;
  const typing = [...persons.values()].filter(({ key, presence }) => presence.typing && key !== me);
  $("typing").textContent = sentence(typing.map(({ user }) => user));
  for (const [key, item] of items) {
    if (persons.has(key)) continue;
    if (item.contains(document.activeElement)) $("text").focus();
    item.remove();
    items.delete(key);
  }
  [...persons.values()].forEach(({ key, user }, place) => {
    if (!items.has(key)) items.set(key, itemFor(user));
    const item = items.get(key);
    item.querySelectorAll("button").forEach((button) => (button.disabled = false));
    const there = $("persons").children[place] ?? null;
    if (there !== item) $("persons").insertBefore(item, there); // one that is in its place keeps the focus
  });
}

function itemFor(name) {
  const item = element("li", "", "");
  if (name === me) {
    item.append(element("span", "person", `${name} (you)`));
    return item;
  }
  const button = element("button", "person", name);
  button.title = `Write to ${name} only`;
  button.setAttribute("aria-pressed", name === marked);
  button.addEventListener("click", () => pick(name));
  item.append(button);
  return item;
}

function sentence(names) {
  if (names.length === 0) return "";
  if (names.length === 1) return `${names[0]} is typing…`;
  return names.length === 2 ? `${names.join(" and ")} are typing…` : `${names.length} people are typing…`;
}
