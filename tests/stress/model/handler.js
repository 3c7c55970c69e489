// The handler of the model in JavaScript: the same as handler.py, but for finalizers, which are timers here.

const CHUNK = 500;

const process = Math.random();
let journal = [];
const sessions = new Map();

export function onOpen(session) {
  const name = session.getParameter("name");
  session.setAttribute("name", name);
  session.setAttribute("last", JSON.parse(session.getParameter("last")));
  sessions.set(name, session);
  begin(session, "onOpen");
  session.send(`hello ${process}`);
  note("opened", name);
  run(session, JSON.parse(session.getParameter("open")));
  end(session);
}

export async function onMessage(session, told) {
  begin(session, "onMessage");
  if (told === "journal") {
    sendJournal(session);
  } else {
    const { via, steps } = JSON.parse(told);
    if (via === "plain" || via === "finalizer") {
      setTimeout(() => run(session, steps), 0);
    } else {
      // Nobody else may call for this session while its promise is pending.
      if (via === "await") await new Promise((resolve) => setTimeout(resolve, 1));
      run(session, steps);
    }
  }
  end(session);
}

export function onClose(session, code) {
  begin(session, "onClose");
  const name = session.getAttribute("name");
  const rooms = session.rooms().sort();
  if (session.isOpen() || session.send("never to be seen")) note("wrong", `${name} is open, or could send, in onClose`);
  const alone = rooms.filter((room) => session.room(room).members() < 1);
  if (alone.length) note("wrong", `in onClose of ${name}, members() did not count it in ${alone}`);
  run(session, session.getAttribute("last"));
  note("closed", name, code, rooms);
  session.setAttribute("over", true);
  sessions.delete(name);
  end(session);
}

function begin(session, hook) {
  const name = session.getAttribute("name");
  if (session.getAttribute("busy")) note("wrong", `${hook} of ${name} during another call`);
  if (session.getAttribute("over")) note("wrong", `${hook} of ${name} after onClose`);
  session.setAttribute("busy", true);
}

function end(session) {
  session.setAttribute("busy", false);
}

function run(session, steps) {
  for (const [number, op, argument, size] of steps) {
    let result = null;
    try {
      result = perform(session, number, op, argument, size) ?? null;
    } catch (error) {
      result = error.message.endsWith("this one is not sent") ? "refused" : "failed";
      if (result === "failed") note("wrong", `${number} ${op} of ${session.getAttribute("name")} threw ${error}`);
    }
    note("did", "script", number, result);
  }
}

function perform(session, number, op, argument, size) {
  switch (op) {
    case "send": return sessions.has(argument) ? sessions.get(argument).send(message(number, size)) : "gone";
    case "close": return sessions.has(argument) ? sessions.get(argument).close(4000, "by handler") : "gone";
    case "nap": return null;
    case "broadcast": return session.room(argument).broadcast(message(number, size));
    case "broadcast_except": return session.room(argument).broadcastExcept(message(number, size));
    case "join": return session.room(argument).join();
    case "leave": return session.room(argument).leave();
    case "members": return session.room(argument).members();
    default: throw new Error(`no such step: ${op}`);
  }
}

function message(number, size) {
  const word = number % 4 < 2 ? `${number} ` : `${number} ä€`;
  const text = word.repeat(Math.floor(size / word.length) + 1).slice(0, Math.max(size, word.length));
  if (number % 4 !== 0) return text;
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function note(...entry) {
  journal.push(entry);
}

function sendJournal(session) {
  const entries = journal;
  journal = [];
  for (let start = 0; start < entries.length; start += CHUNK) {
    session.send(`journal ${JSON.stringify(entries.slice(start, start + CHUNK))}`);
  }
  session.send("journal []");
}
