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
    location.reload();
  } else {
    $(login === null ? "problem" : "state").textContent = `The server has closed the connection: ${code} ${reason}`;
  }
};

function show(message) {
  const row = element("li", message.user === login.user ? "own" : "", "");
  row.append(element("b", "", message.user), message.text);
  row.title = new Date(message.at * 1000).toLocaleString();
  messages.set(message.id, row);
  const later = [...messages.keys()].filter((id) => id > message.id);
  $("messages").insertBefore(row, later.length ? messages.get(Math.min(...later)) : null);
  row.scrollIntoView({ block: "nearest" });
}

$("entrance").addEventListener("submit", (event) => {
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

$(login === null ? "entrance" : "talk").hidden = false;
if (login !== null) $("who").textContent = login.user;
