// Failed reloads: shown at the top of the page until the script is fixed, because the old code still runs.

import { $, copyButton, make } from "../dom.js";
import { toast } from "../dialogs.js";
import { clock, place } from "../format.js";

export function showFailures(connection) {
  const failed = new Map(); // endpoint or file -> the event of the failed reload
  let process = null;
  let last = 0;
  let isNew = false; // false for the first events, which are older than this page

  // The error without the parts of the log line that the heading and the place already show.
  const complaint = (event) => {
    const text = event.text.replace(/^.*?the old code goes on: /, "");
    const start = `${place(event)}: `;
    return text.startsWith(start) ? text.slice(start.length) : text;
  };

  const draw = () => {
    $("failures").replaceChildren(...Array.from(failed.values(), (event) => make(
      "section",
      { className: "failure" },
      make("p", {},
        copyButton([event.text, event.detail].filter(Boolean).join("\n")),
        make("strong", { textContent: "Not reloaded, the old code goes on. " }),
        make("span", { className: "mono place", textContent: place(event) || (event.endpoint ?? "") }),
        make("span", { className: "soft", textContent: ` ${clock(event.at)}` })),
      make("pre", { textContent: complaint(event) }),
      event.detail && make("pre", { className: "stack", textContent: event.detail }),
    )));
  };

  connection.on("hello", ({ pid, started }) => {
    if (process === `${pid} ${started}`) return;
    process = `${pid} ${started}`;
    failed.clear(); // a new process runs the current code
    last = 0;
    draw();
  });

  connection.on("events", ({ events }) => {
    const wereNew = isNew;
    isNew = true;
    const fresh = events.filter(({ n, kind }) => n > last && kind === "reload");
    last = Math.max(last, ...events.map(({ n }) => n));
    if (!fresh.length) return;
    for (const event of fresh) {
      const key = event.endpoint ?? event.file ?? "";
      if (event.level === "error") failed.set(key, event);
      else failed.delete(key);
    }
    draw();
    const news = fresh.at(-1);
    if (wereNew && news.level !== "error") toast(news.text);
  });
}
