// The chat page. chat.js serves the room "chat" at ws/chat; rooms.js serves all other rooms at ws/rooms.

import { ReconnectingWebSocket } from "./wsthreads.js"; // served by: wsthreads run --serve-client

const MAIN_ROOM = "chat";
const MAX_LINES = 1000;
const MAX_RECENT = 5;

const $ = (id) => document.getElementById(id);

let connection = null;
let me = "";
let members = null; // unknown in the main room: chat.js does not send it
let lost = false;
let countdown = null;
let unread = 0;

// Joining and leaving

function address(user, room) {
  const url = new URL(room === MAIN_ROOM ? "ws/chat" : "ws/rooms", location.href);
  url.search = new URLSearchParams(room === MAIN_ROOM ? { user } : { user, room });
  return url;
}

function join(user, room) {
  connection?.close();
  me = user;
  members = null;
  lost = false;
  remember(user, room);
  $("title").textContent = `# ${room}`;
  $("log").replaceChildren();
  $("entrance").hidden = true;
  $("chat").hidden = false;
  say("Connecting …");
  showPeople();
  showTitle();
  const socket = connection = new ReconnectingWebSocket(address(user, room), [], { minDelay: 500, maxDelay: 10_000 });
  const handle = (type, handler) => socket.addEventListener(type, (event) => {
    if (socket === connection) handler(event); // ignore events of connections that were left
  });
  handle("open", onOpen);
  handle("message", ({ data }) => receive(JSON.parse(data)));
  handle("reconnecting", ({ detail }) => onWaiting(Date.now() + detail.delay));
  handle("close", ({ code, reason }) => onEnd(`The server has closed the connection: ${code} ${reason}`));
  $("text").focus();
}

function leave() {
  connection?.close();
  connection = null;
  clearInterval(countdown);
  sessionStorage.removeItem("joined");
  history.replaceState(null, "", location.pathname);
  unread = 0;
  document.title = "Chat";
  $("chat").hidden = true;
  $("entrance").hidden = false;
  showRecent();
  $("room").focus();
}

// The connection

function onOpen() {
  clearInterval(countdown);
  say("");
  $("send").disabled = false;
  if (lost) addNote("You are back.");
  lost = false;
}

function onWaiting(until) {
  $("send").disabled = true;
  if (!lost && $("log").childElementCount) addNote("The connection was lost.");
  lost = true;
  members = null;
  showPeople();
  clearInterval(countdown);
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    say("Not connected.", seconds > 0 ? `Trying again in ${seconds} s` : "Trying …");
  };
  tick();
  countdown = setInterval(tick, 500);
}

function onEnd(text) {
  $("send").disabled = true;
  clearInterval(countdown);
  say(text);
}

function say(text, retrying = "") {
  $("status").hidden = !text;
  $("retry").hidden = !retrying;
  $("countdown").textContent = retrying; // outside the status: screen readers must not read it every second
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
}

// What arrives

function receive(message) {
  if ("members" in message) {
    members = message.members;
    showPeople();
  }
  switch (message.type) {
    case "message":
      addMessage(message.from, message.text, new Date(message.timestamp));
      if (document.hidden) unread++;
      showTitle();
      break;
    case "join":
      addNote(`${message.user} has come in.`);
      break;
    case "leave":
      addNote(`${message.user} has left.`);
      break;
    case "welcome":
      if (!$("log").childElementCount) addNote(`You are in, as ${me}.`);
      break;
  }
}

// Display

function addMessage(from, text, time, own = false) {
  const line = document.createElement("li");
  line.className = own ? "own message" : "message";
  line.dataset.from = from;
  const name = element("span", "from", own ? "You" : from);
  const clock = element("time", "", time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  clock.dateTime = time.toISOString();
  line.append(name, element("p", "text", text), clock);
  add(line, own);
}

function addNote(text) {
  add(element("li", "note", text));
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function add(line, own = false) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const before = log.lastElementChild;
  const isOwn = (item) => item.classList.contains("own");
  const continues = before?.dataset.from && before.dataset.from === line.dataset.from && isOwn(before) === isOwn(line);
  line.classList.toggle("continued", Boolean(continues));
  log.append(line);
  while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
  if (atEnd || own) log.scrollTop = log.scrollHeight;
}

function showPeople() {
  $("people").textContent = members === null ? `as ${me}` : `as ${me}, ${members} here`;
}

function showTitle() {
  document.title = (unread ? `(${unread}) ` : "") + $("title").textContent;
}

// Storage: the names of recent rooms, and this window's room, to rejoin it after a reload

function remember(user, room) {
  const recent = [room, ...recentRooms().filter((name) => name !== room)].slice(0, MAX_RECENT);
  localStorage.setItem("recent", JSON.stringify(recent));
  localStorage.setItem("user", user);
  sessionStorage.setItem("joined", JSON.stringify({ user, room }));
  history.replaceState(null, "", `?${new URLSearchParams({ room })}`);
}

function recentRooms() {
  return JSON.parse(localStorage.getItem("recent") ?? "[]");
}

function showRecent() {
  $("recent").replaceChildren(...recentRooms().map((name) => {
    const chip = element("button", "chip", name);
    chip.type = "button";
    chip.addEventListener("click", () => {
      $("room").value = name;
      $("join").requestSubmit();
    });
    return chip;
  }));
}

/** With chat.js alone there is one room: an endpoint answers a plain request with 400, a path that is none with 404. */
async function offerRooms() {
  const answer = await fetch("ws/rooms").catch(() => null);
  if (answer?.status !== 404) return;
  $("room").value = MAIN_ROOM;
  $("room").readOnly = true;
  $("recent").hidden = true;
  $("rooms-hint").textContent = "This server has one room; serve rooms.js beside chat.js for more.";
}

// Wiring

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = $("user").value.trim();
  const room = $("room").value.trim();
  if (user && room) join(user, room);
});

$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || connection?.readyState !== WebSocket.OPEN) return; // a message that cannot be sent stays in its field
  connection.send(text);
  addMessage(me, text, new Date(), true);
  $("text").value = "";
  $("text").focus();
});

$("leave").addEventListener("click", leave);
$("retry").addEventListener("click", () => connection?.reconnect());

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !connection) return;
  unread = 0;
  showTitle();
});

const given = new URLSearchParams(location.search);
const joined = JSON.parse(sessionStorage.getItem("joined") ?? "null");
$("user").value = given.get("user") ?? joined?.user ?? localStorage.getItem("user") ?? "";
$("room").value = given.get("room") ?? joined?.room ?? MAIN_ROOM;
showRecent();
await offerRooms();
if (joined && joined.room === $("room").value) join(joined.user, joined.room);
else $($("user").value ? "room" : "user").focus();
