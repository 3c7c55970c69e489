// The game's page: it shows the server's states, and sends the player's direction.

import { $ } from "../dom.js";
import { ReconnectingWebSocket } from "../wsthreads.js"; // served by: wsthreads run --serve-client
import * as field from "./field.js";
import * as players from "./players.js";
import { Steering } from "./steering.js";

const AGAIN_MS = 500;
const QUIET_MS = 1000; // without a state for this time, the page shows a message

let socket = null;
let me = "";
let state = null; // the last state
let shownAt = 0; // when the last state arrived
let times = []; // when the states of the last second arrived
const steering = new Steering($("field"), send);

function join(user, room) {
  me = user;
  state = null;
  times = [];
  sessionStorage.setItem("game", JSON.stringify({ user, room }));
  $("entrance").hidden = true;
  $("game").hidden = false;
  $("place").textContent = `${user} in ${room}`;
  say("Connecting …");
  const url = new URL("../ws/game", location.href);
  url.search = new URLSearchParams({ user, room });
  const mine = socket = new ReconnectingWebSocket(url, [], { minDelay: 300, maxDelay: 5000 });
  const on = (type, handler) => mine.addEventListener(type, (event) => socket === mine && handler(event));
  on("open", () => say(""));
  on("resumed", () => say("")); // a server with --resume-s
  on("message", ({ data }) => receive(JSON.parse(data)));
  on("reconnecting", () => say("The connection was lost. Your seat is kept for 10 seconds."));
  on("close", ({ code, reason }) => say(`The server has closed the connection: ${code} ${reason}`));
  requestAnimationFrame(draw);
}

function leave() {
  socket.close();
  socket = null;
  sessionStorage.removeItem("game");
  field.clear();
  $("game").hidden = true;
  $("entrance").hidden = false;
}

function send(direction) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(direction));
}

function receive(message) {
  if (message.type === "again") setTimeout(() => send(steering.direction), AGAIN_MS);
  if (message.type !== "state" || !isNewer(message)) return;
  if (performance.now() - shownAt > QUIET_MS) say("");
  const hadSeat = mine() !== undefined;
  const isNewOwner = state && state.owner !== message.owner;
  state = message;
  shownAt = performance.now();
  times = [...times.filter((time) => time > shownAt - 1000), shownAt];
  field.set(state, me);
  players.show(state, me);
  steering.follow(mine());
  if (mine() ? isNewOwner : hadSeat || state.players.length < 4) {
    send(steering.direction); // takes a seat, or informs a new owner, which has only the saved state
  }
}

/** Whether a state follows the last one. An owner that was cut off may send one more, after the next owner has begun. */
function isNewer({ owner, tick }) {
  return !state || owner > state.owner || (owner === state.owner && tick > state.tick);
}

function mine() {
  return state?.players.find(({ name }) => name === me);
}

function draw(now) {
  if (!socket) return;
  field.draw(now);
  if (state && now - shownAt > QUIET_MS && $("status").hidden) say("Waiting for the game …");
  const rate = times.filter((time) => time > now - 1000).length;
  $("feed").textContent = state ? `${rate} updates a second, owner ${state.owner}` : "";
  requestAnimationFrame(draw);
}

function say(text) {
  $("status").hidden = !text;
  if ($("status").textContent !== text) $("status").textContent = text;
}

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const [user, room] = ["user", "room"].map((id) => $(id).value.trim());
  if (user && room) join(user, room);
});
$("leave").addEventListener("click", leave);

const given = new URLSearchParams(location.search);
const joined = JSON.parse(sessionStorage.getItem("game") ?? "null");
$("user").value = given.get("user") ?? joined?.user ?? "";
$("room").value = given.get("room") ?? joined?.room ?? "lobby";
if (joined && joined.room === $("room").value && joined.user === $("user").value) join(joined.user, joined.room);
