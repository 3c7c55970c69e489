// Calls every row of the JavaScript API for tests/javascript/test_script_contract.py: a message is JSON, [function, ...arguments];
// what the function returns goes back as JSON, and so does what it throws.
let opened = 0;
const closed = [];

const calls = {
  id: (session) => session.id,
  overwriteId: (session) => { session.id = "mine"; },
  opened: () => opened,
  closed: () => closed,
  send: (session, message) => session.send(message),
  sendNothing: (session) => session.send(),
  sendNumber: (session) => session.send(42),
  sendObject: (session) => session.send({ a: 1 }),
  sendSurrogate: (session) => session.send("a\ud800b"),
  sendBytes: (session) => session.send(new Uint8Array([0, 127, 128, 255])),
  sendBuffer: (session) => session.send(new Uint16Array([0x4241]).buffer),
  sendBig: (session, size) => session.send("x".repeat(size)),
  sendAfterClose: (session) => { session.close(4001, "enough"); closed.push(session.isOpen(), session.send("late")); },
  closeBadly: (session, code, reason) => session.close(code, reason),
  isOpen: (session) => session.isOpen(),
  parameter: (session, name) => session.getParameter(name),
  header: (session, name) => session.getHeader(name),
  path: (session) => session.getRequestPath(),
  address: (session) => session.getRemoteAddr(),
  attributes: (session) => {
    session.setAttribute("map", new Map([["k", { deep: true }]]));
    const map = session.getAttribute("map");
    map.set("more", 1);
    return [session.getAttribute("map").get("k").deep, session.getAttribute("map") === map,
            session.getAttribute("missing"), Object.keys(session.getAttributes())];
  },
  rooms: (session) => session.rooms(),
  join: (session, name) => session.room(name).join(),
  leave: (session, name) => session.room(name).leave(),
  members: (session, name) => session.room(name).members(),
  name: (session, name) => session.room(name).getName(),
  broadcast: (session, name, message) => session.room(name).broadcast(message),
  broadcastExcept: (session, name, message) => session.room(name).broadcastExcept(message),
  joinMany: (session, count) => {
    for (let i = 0; i < count; i++) session.room("room " + i).join();
    return session.rooms().length;
  },
  mixed: (session, name) => {
    session.room(name).broadcast("a");
    session.send("b");
    session.room(name).broadcast("c");
  },
  fail: () => { throw new RangeError("as asked"); },
};

export function onOpen(session) {
  opened++;
  if (session.getParameter("failOpen")) throw new Error("no entry");
}

export function onMessage(session, message) {
  const [name, ...args] = JSON.parse(message);
  if (name === "escape") throw new Error("escaped");
  if (name === "loop") while (true) {}
  let answer;
  try {
    answer = { result: calls[name](session, ...args) };
  } catch (error) {
    answer = { error: error.name, message: error.message };
  }
  session.send(JSON.stringify(answer));
}

export function onClose(session, code) {
  closed.push([code, session.isOpen(), session.send("too late"), session.rooms()]);
  session.room("watchers").broadcastExcept(JSON.stringify({ left: code, stillIn: session.room("shared").members() }));
  if (session.getParameter("failClose")) throw new Error("no exit");
}
