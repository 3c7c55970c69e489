// The form that leads into a room. The browser stores the names of recent rooms, and this window's room, to rejoin it
// after a reload.

import { $, element } from "./dom.js";
import { MAIN_ROOM } from "./talk.js";

const LOBBY = "lobby";
const MAX_RECENT = 5;

/** Show the form. `join(user, room)` is called when it is sent, or at once if this window was in a room. */
export function start(join) {
  $("join").addEventListener("submit", (event) => {
    event.preventDefault();
    const user = $("user").value.trim();
    const room = $("room").value.trim();
    if (user && room) join(user, room);
  });
  const given = new URLSearchParams(location.search);
  const joined = JSON.parse(sessionStorage.getItem("joined") ?? "null");
  $("user").value = given.get("user") ?? joined?.user ?? localStorage.getItem("user") ?? "";
  $("room").value = given.get("room") ?? joined?.room ?? LOBBY;
  showRecent();
  if (joined && joined.room === $("room").value) join(joined.user, joined.room);
  else $($("user").value ? "room" : "user").focus();
}

/** Whether the server has rooms.js. If only chat.js is served, offer its one room: an unknown path answers 404. Call it
 * only after a connection has failed, because browsers write such an answer to the console. */
export async function findRooms() {
  const answer = await fetch("ws/rooms").catch(() => null);
  if (answer?.status !== 404) return true;
  $("room").value = MAIN_ROOM;
  $("room").readOnly = true;
  $("recent").hidden = true;
  $("rooms-hint").textContent = "This server has one room; serve rooms.js beside chat.js for more.";
  return false;
}

export function close(user, room) {
  const recent = [room, ...recentRooms().filter((name) => name !== room)].slice(0, MAX_RECENT);
  localStorage.setItem("recent", JSON.stringify(recent));
  localStorage.setItem("user", user);
  sessionStorage.setItem("joined", JSON.stringify({ user, room }));
  history.replaceState(null, "", `?${new URLSearchParams({ room })}`);
  $("entrance").hidden = true;
}

export function open() {
  sessionStorage.removeItem("joined");
  history.replaceState(null, "", location.pathname);
  $("entrance").hidden = false;
  showRecent();
  $("room").focus();
}

function recentRooms() {
  return JSON.parse(localStorage.getItem("recent") ?? "[]");
}

function showRecent() {
  $("recent").replaceChildren(...recentRooms().map((name) => {
    const chip = element("button", "chip", name);
    chip.addEventListener("click", () => {
      $("room").value = name;
      $("join").requestSubmit();
    });
    return chip;
  }));
}
