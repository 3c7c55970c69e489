// The endpoints: their addresses, their handlers' functions and their current numbers.

import { $, copyButton, make, setText } from "../dom.js";
import { bytes, count, plural, rate, seconds } from "../format.js";
import { Rows } from "../rows.js";

/** The address of an endpoint, relative to this page: the server may be mounted below a path. */
export function addressOf(path) {
  const url = new URL(`..${path}`, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  return url;
}

const NUMBERS = [
  ["sessions", "Sessions", count],
  ["rooms", "Rooms", count],
  ["users", "Users", count],
  ["messages_in", "In", rate],
  ["messages_out", "Out", rate],
  ["handler_p50_s", "p50", seconds],
  ["handler_p99_s", "p99", seconds],
  ["errors_total", "Errors", count],
];

function titleOfUsers(now) {
  const [changes, kicks, bans] = ["presence_changes_total", "kicks_total", "bans_total"].map((name) => now?.[name]);
  return `since the start of the server: ${plural(changes, "change")} of presence, ${plural(kicks, "kicked session")}, ${plural(bans, "ban")}`;
}

// In a second in which no call ends, an endpoint has no times. Then the last times are shown, for at most a minute.
const TIMES = ["handler_p50_s", "handler_p99_s"];
const TIMES_KEPT_S = 60;
const TITLE_OF_TIMES = "of the calls that ended in the last second; without such calls, the last known times, for a minute";

const TITLE_OF_WAITS = "how long calls waited for other calls of the script, in the last minute; measured once a second while there are sessions";

function textOfWaits(now) {
  const longest = now?.script_wait_max_s ?? null; // a Python handler has none
  return longest === null ? "" : `waits in the script: median ${seconds(now.script_wait_p50_s)}, longest ${seconds(longest)}`;
}

const TITLE_OF_SURVIVAL = "sessions that wait for their clients; bytes that are kept until clients acknowledge them; sessions that were resumed, or not, since the start of the server";

const REFUSED = /^resumes_refused_(\w+)_total$/;

function textOfSurvival(now) {
  if (!now?.sessions_suspended_total && !now?.unacknowledged_bytes) return "";
  const reasons = Object.entries(now).flatMap(([name, n]) => (REFUSED.test(name) ? [`${REFUSED.exec(name)[1]} ${count(n)}`] : []));
  const parts = [`${count(now.suspended)} suspended`, `${bytes(now.unacknowledged_bytes)} not acknowledged`, `${count(now.sessions_resumed_total)} resumed`];
  return [...parts, ...(reasons.length ? [`not resumed: ${reasons.join(", ")}`] : [])].join(", ");
}

/** `onTry(path)` is called when the user wants to try an endpoint. Returns { endpoints, sample }. */
export function makeEndpoints(onTry) {
  let numbers = {};
  let times = {}; // by path: { at, handler_p50_s, handler_p99_s }
  let shown = [];

  const create = ({ path, handler, language, functions }) => {
    const address = addressOf(path).href.replaceAll("%3C", "<").replaceAll("%3E", ">"); // a path with parameters, as it was written
    return make(
      "tr",
      {},
      make("th", { scope: "row", className: "title" },
        make("span", { className: "mono path", textContent: path }),
        make("span", { className: "address" }, make("span", { className: "mono soft", textContent: address }), " ", copyButton(address))),
      make("td", { className: "handler" },
        make("span", { className: "mono", textContent: handler }), " ", make("span", { className: "tag", textContent: language ?? "" }),
        make("span", { className: "soft functions mono", textContent: functions.join(", ") }),
        make("span", { className: "soft waits", title: TITLE_OF_WAITS }),
        make("span", { className: "soft survival", title: TITLE_OF_SURVIVAL })),
      ...NUMBERS.map(([, label]) => make("td", { className: "number", "data-label": label })),
      make("td", { className: "actions" },
        make("button", { type: "button", className: "small", textContent: "Try it", "aria-label": `Try ${path}`, onclick: () => onTry(path) })),
    );
  };

  const update = (row, { path }) => {
    const now = numbers[path];
    setText(row.querySelector(".waits"), textOfWaits(now));
    setText(row.querySelector(".survival"), textOfSurvival(now));
    NUMBERS.forEach(([name, , format], index) => {
      const cell = row.cells[index + 2];
      setText(cell, format((TIMES.includes(name) ? times[path] : now)?.[name]));
      if (TIMES.includes(name)) cell.title = TITLE_OF_TIMES;
      if (name === "users") cell.title = titleOfUsers(now);
      if (name === "errors_total") {
        cell.classList.toggle("bad", Boolean(now?.errors_total));
        cell.title = `since the start of the server; ${rate(now?.errors)} now`;
      }
    });
  };

  const rows = new Rows($("endpoints"), {
    key: ({ path, handler, language, functions }) => JSON.stringify([path, handler, language, functions]),
    create,
    update,
  });

  return {
    endpoints: (endpoints) => {
      shown = endpoints;
      $("no-endpoints").hidden = endpoints.length > 0;
      rows.show(shown);
    },
    sample: (sample) => {
      numbers = sample.endpoints;
      const recent = Object.entries(times).filter(([, { at }]) => sample.at - at < TIMES_KEPT_S);
      const measured = Object.entries(numbers).filter(([, now]) => now.handler_p50_s !== null);
      times = Object.fromEntries([...recent, ...measured.map(([path, now]) => [path, { at: sample.at, ...now }])]);
      rows.show(shown);
    },
  };
}
