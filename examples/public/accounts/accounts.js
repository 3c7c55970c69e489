// The page of accounts.js. The token of the login stays in this browser until the user logs out.

import { $, element } from "../dom.js";
import { isFinal, ReconnectingWebSocket } from "../wsthreads.js"; // served by: wsthreads run --serve-client

const LOG_IN_AGAIN = 4001;
const login = JSON.parse(localStorage.getItem("login") ?? "null"); // { token, user }
const url = new URL("../ws/accounts", location.href);
if (login !== null) url.searchParams.set("token", login.token);

const socket = new ReconnectingWebSocket(url, [], {
  isFinal: ({ code }) => code === LOG_IN_AGAIN || isFinal(code),
});
const messages = new Map(); // by id: what comes twice is shown once

socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === "token") {
    localStorage.setItem("login", JSON.stringify({ token: message.token, user: message.user }));
    location.reload();
  } else if (message.type === "error") {
    $("problem").textContent = message.text;
  } else if (!messages.has(message.id)) {
    show(message);
  }
};
socket.onopen = socket.onresumed = () => { $("state").textContent = ""; };
socket.onreconnecting = () => { $("state").textContent = "The connection was lost. Trying again …"; };
socket.onclose = ({ code, reason }) => {
  if (code === LOG_IN_AGAIN) {
    localStorage.removeItem("login");
    sessionStorage.setItem("why", reason);
    location.reload();
  } else {
    $(login === null ? "problem" : "state").textContent = `The server has closed the connection: ${code} ${reason}`;
  }
};

function show({ id, user, text, at }) {
  const list = $("messages");
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  const time = new Date(at * 1000);
  const isToday = time.toDateString() === new Date().toDateString();
  const row = element("li", user === login.user ? "own" : "", "");
  const shown = isToday ? time.toLocaleTimeString([], { timeStyle: "short" }) : time.toLocaleDateString();
  row.append(element("time", "", shown), element("b", "", user), text);
  row.title = time.toLocaleString();
  messages.set(id, row);
  const later = [...messages.keys()].filter((other) => other > id);
  list.insertBefore(row, later.length ? messages.get(Math.min(...later)) : null);
  if (isAtEnd || user === login.user) list.scrollTop = list.scrollHeight;
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const { value: type } = event.submitter;
  $("problem").textContent = "";
  socket.send(JSON.stringify({ type, name: $("name").value.trim(), password: $("password").value }));
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.send(JSON.stringify({ type: "message", text: $("text").value }))) $("text").value = "";
});
$("logout").addEventListener("click", () => socket.send(JSON.stringify({ type: "logout" })));

if (login === null) {
  $("login").hidden = false;
  $("problem").textContent = sessionStorage.getItem("why") ?? "";
  sessionStorage.removeItem("why");
  $("name").focus();
} else {
  $("talk").hidden = false;
  $("who").textContent = login.user;
  $("text").focus();
}
