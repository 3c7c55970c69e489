// A WebSocket client: connect to an endpoint, send text, see what comes.

import { addressOf } from "./endpoints.js";

const MAX_LINES = 500;

const CLOSE_CODES = {
  1000: "normal",
  1001: "going away",
  1002: "protocol error",
  1003: "unsupported data",
  1005: "no code given",
  1006: "refused, or the connection was lost",
  1007: "invalid payload",
  1008: "policy violation",
  1009: "message too big",
  1011: "the server failed",
  1012: "service restart",
  1013: "try again later",
};

const [endpoint, parameters, connect, log, message, send, clear] = [
  "endpoint", "parameters", "connect", "log", "message", "send", "clear",
].map((id) => document.getElementById(id));

let socket = null;

function note(sign, text, className) {
  const line = document.createElement("li");
  const [time, arrow, words] = ["time", "span", "span"].map((tag) => document.createElement(tag));
  time.textContent = new Date().toLocaleTimeString([], { hour12: false });
  arrow.textContent = sign;
  words.textContent = text;
  line.className = className;
  line.append(time, arrow, words);
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(line);
  while (log.children.length > MAX_LINES) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function wordsFor(event) {
  const words = CLOSE_CODES[event.code] ?? (event.code >= 4000 ? "the application's own" : "unknown");
  return `closed: ${event.code} ${words}${event.reason ? `: ${event.reason}` : ""}`;
}

function update() {
  const open = socket?.readyState === WebSocket.OPEN;
  message.disabled = send.disabled = !open;
  connect.textContent = socket ? "Disconnect" : "Connect";
  endpoint.disabled = parameters.disabled = Boolean(socket);
}

function open() {
  const url = addressOf(endpoint.value);
  url.search = parameters.value.trim();
  note("·", `connecting to ${url.href}`, "note");
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    note("·", socket.protocol ? `open, speaking ${socket.protocol}` : "open", "note");
    update();
    message.focus();
  };
  socket.onmessage = ({ data }) => {
    note("←", typeof data === "string" ? data : `binary, ${data.byteLength} bytes`, "");
  };
  socket.onclose = (event) => {
    note("·", wordsFor(event), event.code === 1000 || event.code === 1005 ? "note" : "bad");
    socket = null;
    update();
  };
}

document.getElementById("connection").addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket) socket.close(1000);
  else if (endpoint.value) open();
  update();
});

document.getElementById("sending").addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket?.readyState !== WebSocket.OPEN) return;
  socket.send(message.value);
  note("→", message.value, "sent");
  message.value = "";
});

clear.addEventListener("click", () => log.replaceChildren());
update();
