// The head of the page: the server's data, the state of the connection, and the form for the token.

import { $, setText } from "./dom.js";
import { age } from "./format.js";
import { keepToken } from "./token.js";

const WORDS = {
  connecting: "connecting",
  live: "live",
  silent: "the server is silent",
  away: "the server is unreachable",
  restarting: "the server restarts",
  draining: "the server shuts down",
  refused: "access denied",
};

export function showStatus(connection) {
  let hello = null;
  let until = null;

  const showProcess = () => {
    if (hello === null) return;
    const { process, python, pid, host, started, reload } = hello;
    // The host name is useless on the developer's own machine.
    const parts = [process, process !== "development" && host, `Python ${python}`, `pid ${pid}`, `up ${age(connection.now() - started)}`];
    if (reload) parts.push("reloads");
    setText($("process"), parts.filter(Boolean).join(" · "));
  };

  const showCountdown = () => {
    const left = until === null ? 0 : Math.ceil((until - Date.now()) / 1000);
    setText($("countdown"), left > 0 ? `trying again in ${left} s` : until === null ? "" : "trying …");
  };

  connection.on("hello", (message) => {
    hello = message;
    setText($("version"), message.version);
    $("one-worker").hidden = message.process === "development";
    showProcess();
  });
  connection.on("sample", showProcess);
  connection.on("state", (detail) => {
    until = detail.until;
    $("state").dataset.state = detail.state;
    setText($("state-text"), WORDS[detail.state]);
    $("retry").hidden = until === null;
    document.title = ["live", "connecting"].includes(detail.state) ? "wsthreads" : `(${WORDS[detail.state]}) wsthreads`;
    showCountdown();
    showRefusal(detail.refusal);
  });
  setInterval(showCountdown, 500);
  $("retry").addEventListener("click", () => connection.retry());

  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken($("token").value.trim());
    $("token").value = "";
    setText($("token-problem"), "");
    connection.open();
  });
}

function showRefusal(refusal) {
  const form = $("token-form");
  form.hidden = refusal === null;
  document.body.classList.toggle("locked", refusal !== null);
  if (refusal === null) return;
  setText($("token-problem"), refusal.text);
  $("token-fields").hidden = !refusal.needsToken; // otherwise the server has no token, so a token would not help
  if (refusal.needsToken) $("token").focus();
}
