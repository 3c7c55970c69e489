// The poll's page. Each browser is one voter: it keeps a random name.

import { $, element } from "../dom.js";
import { ReconnectingWebSocket } from "../wsthreads.js"; // served by: wsthreads run --serve-client

const given = new URLSearchParams(location.search);
const user = given.get("user") ?? localStorage.getItem("voter") ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
localStorage.setItem("voter", user);

const url = new URL("../ws/poll", location.href);
url.search = new URLSearchParams({ user, room: given.get("room") ?? "" });
const socket = new ReconnectingWebSocket(url, [], { minDelay: 300, maxDelay: 5000 });

let newest = -1; // the number of the shown result
let counts = {}; // its votes
let mine = null;

socket.onmessage = ({ data }) => {
  const result = JSON.parse(data);
  if ("mine" in result) {
    newest = -1; // a new session: the poll may have started again
    mine = result.mine;
  }
  if (result.changes <= newest) return; // older than the shown result: it came from another process
  newest = result.changes;
  counts = result.counts;
  show();
};
socket.onresumed = show; // a server with --resume-s: nothing was missed
socket.onreconnecting = () => {
  $("total").textContent = "The connection was lost. Trying again …";
  for (const button of document.querySelectorAll(".choice")) button.disabled = true;
};
socket.onclose = ({ code, reason }) => { $("total").textContent = `The server has closed the connection: ${code} ${reason}`; };

function show() {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  $("total").textContent = total === 1 ? "1 vote" : `${total} votes`;
  for (const [choice, count] of Object.entries(counts)) {
    const button = document.querySelector(`[data-choice="${CSS.escape(choice)}"]`) ?? buttonFor(choice);
    button.disabled = false;
    button.setAttribute("aria-pressed", choice === mine);
    button.querySelector(".count").textContent = count;
    button.querySelector("progress").value = total ? count / total : 0;
  }
}

function buttonFor(choice) {
  const button = element("button", "choice", "");
  button.dataset.choice = choice;
  const bar = element("progress", "", "");
  bar.ariaHidden = true;
  button.append(element("span", "", choice), element("span", "count", ""), bar);
  button.addEventListener("click", () => {
    if (!socket.send(choice)) return;
    mine = choice;
    for (const other of document.querySelectorAll(".choice")) other.setAttribute("aria-pressed", other === button);
  });
  $("choices").append(button);
  return button;
}
