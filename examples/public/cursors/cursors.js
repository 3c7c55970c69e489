// The board's page: it sends this user's position, and shows the positions of the others.

import { $, element } from "../dom.js";
import { ReconnectingWebSocket } from "../wsthreads.js"; // served by: wsthreads run --serve-client

const given = new URLSearchParams(location.search);
const user = given.get("user") ?? sessionStorage.getItem("user") ?? `guest-${Math.floor(Math.random() * 1000)}`;
sessionStorage.setItem("user", user); // a reloaded page has the same user

const url = new URL("../ws/cursors", location.href);
url.search = new URLSearchParams({ user, room: given.get("room") ?? "" });
const socket = new ReconnectingWebSocket(url, [], { minDelay: 300, maxDelay: 5000 });
const people = new Set();
const cursors = new Map(); // by user

socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === "cursor") {
    point(message);
    return;
  }
  if (message.type === "welcome") people.clear();
  for (const person of [...(message.people ?? []), ...(message.joined ?? [])]) people.add(person.user);
  for (const person of message.left ?? []) people.delete(person.user);
  showCount();
  for (const [name, cursor] of cursors) {
    if (people.has(name)) continue;
    cursor.remove();
    cursors.delete(name);
  }
};
socket.onresumed = showCount; // a server with --resume-s: nothing was missed
socket.onreconnecting = () => { $("people").textContent = "The connection was lost. Trying again …"; };
socket.onclose = ({ code, reason }) => { $("people").textContent = `The server has closed the connection: ${code} ${reason}`; };

function showCount() {
  $("people").textContent = `You are ${user}, ${people.size} here`;
}

function point({ user: name, x, y }) {
  if (name === user) return; // another tab of this user
  if (!cursors.has(name)) {
    const cursor = element("div", "cursor", name);
    cursor.style.setProperty("--hue", [...name].reduce((hue, letter) => (hue * 31 + letter.codePointAt(0)) % 360, 7));
    $("board").append(cursor);
    cursors.set(name, cursor);
  }
  cursors.get(name).style.left = `${x * 100}%`;
  cursors.get(name).style.top = `${y * 100}%`;
}

let wanted = null; // the position to send with the next frame, so at most 60 a second

$("board").addEventListener("pointermove", ({ clientX, clientY }) => {
  const { left, top, width, height } = $("board").getBoundingClientRect();
  if (!wanted) requestAnimationFrame(sendWanted);
  wanted = { x: round((clientX - left) / width), y: round((clientY - top) / height) };
});

function sendWanted() {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wanted));
  wanted = null;
}

function round(part) {
  return Math.round(Math.min(Math.max(part, 0), 1) * 10000) / 10000;
}
