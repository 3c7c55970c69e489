// The handler of the stress test in JavaScript: the same as handler.py. See history.py.

import { RequestError, RequestTimeout, SessionClosed, user } from "wsthreads";

const BYE = -1;
const CHUNK = 1000;

let time = 0;
let journal = [];
const sessions = new Map();

export function onHandshake(request) {
  request.setUser(request.getParameter("user"));
}

export function onOpen(session) {
  session.setAttribute("name", session.getParameter("name"));
  sessions.set(session.getAttribute("name"), session);
  call(session, "onOpen", () => {
    note("open", session, session.id);
    run(session, 0, session.getParameter("steps").split(" ").filter(Boolean), "");
  });
}

export async function onMessage(session, message) {
  if (message === "journal") {
    sendJournal(session);
    return;
  }
  const [head, body] = split(message);
  const [seq, ...steps] = head.split(" ");
  const fault = steps.at(-1).startsWith("!") ? steps.pop().slice(1) : null;
  if (seq % 16 === 7) {
    // Nobody else may call for this session while its promise is pending.
    begin(session, "onMessage");
    await new Promise((resolve) => setTimeout(resolve, 1));
    end(session);
  }
  const asking = call(session, "onMessage", () => run(session, Number(seq), steps, body));
  if (asking) await asking;
  if (fault) injected(fault); // behind the call, since one that is stopped at its deadline runs no `finally`
}

export async function onRequest(session, message) {
  const [head, body] = split(message);
  const [seq, ...steps] = head.split(" ");
  const how = steps.pop();
  const asking = call(session, "onRequest", () => run(session, Number(seq), steps, body));
  if (asking) await asking;
  if (how === "?e") throw new RequestError(`no ${seq}`);
  if (how.startsWith("!")) injected(how.slice(1));
  return how === "?n" ? null : message;
}

export function onSuspend(session) {
  call(session, "onSuspend", () => session.setAttribute("away", true));
}

export function onResume(session) {
  if (!session.getAttribute("away")) note("wrong", session, "onResume of a session that is not suspended");
  session.setAttribute("away", false);
  call(session, "onResume", () => {});
}

export function onClose(session, code, reason) {
  session.setAttribute("away", false);
  call(session, "onClose", () => {
    const isOpen = session.isOpen() || session.send("never to be seen");
    const rooms = session.rooms().sort();
    const alone = rooms.filter((room) => session.room(room).members() < 1);
    run(session, BYE, rooms.map((room) => "x" + room), null);
    note("close", session, code, reason, rooms, alone, isOpen);
    session.setAttribute("over", true);
    sessions.delete(session.getAttribute("name"));
  });
}

// Fails as a handler can; "injected" is then in the log.
function injected(fault) {
  const kept = [];
  switch (fault) {
    case "raise": throw new Error("injected");
    case "recurse": return injected(fault) + 1;
    case "heap": for (;;) kept.push(new Uint8Array(1 << 20));
    case "loop": for (;;);
    default: throw new Error(`no such fault: ${fault}`);
  }
}

function call(session, hook, action) {
  begin(session, hook);
  let promise;
  try {
    promise = action();
  } finally {
    if (!promise) end(session);
  }
  return promise?.finally(() => end(session));
}

function begin(session, hook) {
  if (session.getAttribute("busy")) note("wrong", session, hook + " during another call");
  if (session.getAttribute("away")) note("wrong", session, hook + " of a session that is suspended");
  if (session.getAttribute("over")) note("wrong", session, hook + " after onClose");
  session.setAttribute("busy", true);
}

function end(session) {
  session.setAttribute("busy", false);
}

// A promise only if a step asks the client.
function run(session, seq, steps, body, times = [++time]) {
  for (let index = times.length - 1; index < steps.length; index++) {
    const step = steps[index];
    const head = `${session.getAttribute("name")} ${seq} ${index}\n`;
    if (step[0] === "q") {
      return ask(session, step.slice(1), seq, index, joined(head, body)).then(() => {
        times.push(++time);
        return run(session, seq, steps, body, times);
      });
    }
    perform(session, step[0], step.slice(1), head, body);
    times.push(++time);
  }
  note("ran", session, seq, times, seq === BYE ? steps.map((step) => step.slice(1)) : null);
}

// Asks the client, and notes what comes of it.
async function ask(session, how, seq, index, message) {
  const wanted = how === "e" ? `no ${seq}` : how === "n" ? null : message;
  let found;
  try {
    found = await session.request(message);
    if (found instanceof ArrayBuffer) found = new Uint8Array(found);
  } catch (error) {
    if (error instanceof SessionClosed || error instanceof RequestTimeout) {
      note("asked", session, seq, index, error instanceof SessionClosed ? "SessionClosed" : "RequestTimeout");
      return;
    }
    found = error instanceof RequestError ? error.message : String(error);
  }
  const isRight = typeof found === typeof wanted && String(found) === String(wanted);
  note("asked", session, seq, index, isRight ? "" : `${found}, not ${wanted}`.slice(0, 120));
}

function perform(session, op, argument, head, body) {
  switch (op) {
    case "s": session.send(head); break;
    case "c": session.close(Number(argument), "as told"); break;
    case "e": session.send(joined(head, body)); break;
    case "j": session.room(argument).join(); break;
    case "l": session.room(argument).leave(); break;
    case "b": session.room(argument).broadcast(joined(head, body)); break;
    case "u": user(argument).send(joined(head, body)); break;
    case "x": session.room(argument).broadcastExcept(joined(head, body ?? argument)); break;
    case "m": session.send(head + session.room(argument).members()); break;
    case "k": sessions.get(argument).close(4001, "by another"); break;
    default: throw new Error(`no such step: ${op}${argument}`);
  }
}

function note(kind, session, ...what) {
  journal.push([kind, session.getAttribute("name"), ...what]);
}

function sendJournal(session) {
  const entries = journal;
  journal = [];
  for (let start = 0; start < entries.length; start += CHUNK) {
    session.send(JSON.stringify(entries.slice(start, start + CHUNK)));
  }
  session.send("[]");
}

function split(message) {
  if (typeof message === "string") {
    const end = message.indexOf("\n");
    return [message.slice(0, end), message.slice(end + 1)];
  }
  const bytes = new Uint8Array(message);
  const end = bytes.indexOf(10);
  return [String.fromCharCode(...bytes.subarray(0, end)), bytes.subarray(end + 1)];
}

function joined(head, body) {
  if (typeof body === "string") return head + body;
  const bytes = new Uint8Array(head.length + body.length);
  for (let i = 0; i < head.length; i++) bytes[i] = head.charCodeAt(i);
  bytes.set(body, head.length);
  return bytes;
}
