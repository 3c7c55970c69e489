// The page of accounts.js. The token of the login stays in this browser until the user logs out.

import { $, element } from "../dom.js";
import { isFinal, ReconnectingWebSocket } from "../wsthreads.js"; // served by: wsthreads run --serve-client

const LOG_IN_AGAIN = 4001;
const stored = localStorage.getItem("login");
const login = JSON.parse(stored ?? "null"); // { token, user }
const url = new URL("../ws/accounts", location.href);
if (login !== null) url.searchParams.set("token", login.token);

const socket = new ReconnectingWebSocket(url, [], {
  isFinal: ({ code }) => code === LOG_IN_AGAIN || isFinal(code),
});
const messages = new Map(); // by id: what comes twice is shown once
let isLost = false;
let waiting = 0; // messages that were typed while the connection is lost

socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === "token") {
    localStorage.setItem("login", JSON.stringify({ token: message.token, user: message.user }));
    location.reload();
  } else if (message.type === "error") {
    tell(message.text);
  } else if (!messages.has(message.id)) {
    show(message);
  }
};
socket.onopen = socket.onresumed = () => {
  if (isLost) tell("");
  isLost = false;
  waiting = 0;
};
socket.onreconnecting = () => {
  isLost = true;
  tellLost();
};
socket.onclose = ({ code, reason }) => {
  if (code === LOG_IN_AGAIN) {
    if (localStorage.getItem("login") === stored) { // otherwise another user has logged in, in another tab
      localStorage.removeItem("login");
      sessionStorage.setItem("why", reason);
    }
    location.reload();
  } else {
    tell(`The server has closed the connection: ${code} ${reason}`);
  }
};

function isAtEnd() {
  const { scrollHeight, scrollTop, clientHeight } = $("messages");
  return scrollHeight - scrollTop - clientHeight < 80;
}

function scrollToEnd() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

function tell(text) {
  const stays = isAtEnd(); // asked before the text is shown, because the text makes the list shorter
  $(login === null ? "problem" : "state").textContent = text;
  if (stays) scrollToEnd();
}

function tellLost() {
  const what = waiting === 1 ? " 1 message waits." : ` ${waiting} messages wait.`;
  tell(`The connection was lost. Trying again …${waiting ? what : ""}`);
}

function show({ id, user, text, at }) {
  const list = $("messages");
  const stays = isAtEnd();
  const time = new Date(at * 1000);
  const isToday = time.toDateString() === new Date().toDateString();
  const row = element("li", user === login.user ? "own" : "", "");
  const shown = isToday ? time.toLocaleTimeString([], { timeStyle: "short" }) : time.toLocaleDateString();
  row.append(element("time", "", shown), element("b", "", user), text);
  row.title = time.toLocaleString();
  messages.set(id, row);
  const later = [...messages.keys()].filter((other) => other > id);
  list.insertBefore(row, later.length ? messages.get(Math.min(...later)) : null);
  if (stays || user === login.user) scrollToEnd();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const { value: type } = event.submitter;
  if (!isLost) tell("");
  socket.send(JSON.stringify({ type, name: $("name").value.trim(), password: $("password").value }));
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!socket.send(JSON.stringify({ type: "message", text: $("text").value }))) return;
  $("text").value = "";
  if (!isLost) return;
  waiting += 1;
  tellLost();
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
