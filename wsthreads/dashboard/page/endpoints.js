// The table of endpoints, asked for again every two seconds, and the choices of the client below it.

const POLL_MS = 2000;

const server = document.getElementById("server");
const table = document.getElementById("endpoints");
const choice = document.getElementById("endpoint");

/** The address of an endpoint, as seen from this page; the server may be mounted below a path. */
export function addressOf(path) {
  const url = new URL(".." + path, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

function cell(text, className = "") {
  const td = document.createElement("td");
  td.textContent = text;
  td.className = className;
  return td;
}

function row(endpoint) {
  const tr = document.createElement("tr");
  tr.append(
    cell(addressOf(endpoint.path).href),
    cell(endpoint.handler),
    cell(endpoint.functions.join(", ")),
    cell(endpoint.sessions, "number"),
  );
  return tr;
}

function show(endpoints) {
  table.replaceChildren(...endpoints.map(row));
  const paths = endpoints.map((endpoint) => endpoint.path);
  if (paths.join() !== Array.from(choice.options, (option) => option.value).join()) {
    const chosen = choice.value;
    choice.replaceChildren(...paths.map((path) => new Option(path)));
    if (paths.includes(chosen)) choice.value = chosen;
  }
}

function say(text, bad = false) {
  if (server.textContent !== text) server.textContent = text; // so that it is read out only when it changes
  server.classList.toggle("bad", bad);
}

async function poll() {
  try {
    const answer = await fetch("status.json", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show((await answer.json()).endpoints);
    say(`running at ${location.host}`);
  } catch {
    say("the server does not answer", true);
  }
  setTimeout(poll, POLL_MS);
}

poll();
