// A chat with accounts: ws://127.0.0.1:5000/ws/accounts. Users, logins and messages are in SQLite, by _accounts.py.
// The messages are JSON. A client without a login sends:
//
//   { type: "register" or "login", name, password }
//
// and receives { type: "token", token, user } or { type: "error", text }. Then it connects again, with ?token=…, and
// receives { type: "message", id, user, text, at }: the last 50 messages, and all later ones. A message can come twice,
// so the client shows each message once, in the order of the ids. A client with a login sends:
//
//   { type: "message", text }
//   { type: "logout" }           ends the logins and the sessions of the user, on all devices

import { user } from "wsthreads";
import { last, login, logout, register, save, user_of as userOf } from "./_accounts.py";

const MAX_TEXT = 2000;
const MAX_LOGINS = 20; // per minute and address: hashing a password uses a thread that others wait for
const logins = new Map(); // by address
let minute = 0;
const inJson = (type, fields) => JSON.stringify({ type, ...fields });

export async function onHandshake(request) {
  const token = request.getParameter("token");
  if (!token) return; // this client will log in
  const name = await userOf(token);
  if (name === null) return { close: 4001, reason: "log in again" };
  request.setUser(name);
}

export async function onOpen(session) {
  if (session.user === null) return;
  session.room("lobby").join();
  if ((await userOf(session.getParameter("token"))) === null) session.close(4001, "log in again"); // logged out meanwhile
  for (const message of await last(50)) session.send(inJson("message", message));
}

function admit(address) {
  const now = Math.floor(Date.now() / 60_000);
  if (now !== minute) logins.clear();
  minute = now;
  logins.set(address, (logins.get(address) ?? 0) + 1);
  return logins.get(address) <= MAX_LOGINS;
}

// The fields of a message. A client may send anything, so each field becomes a well-formed text of limited length.
function fieldsOf(message) {
  let sent = null;
  try {
    sent = JSON.parse(message);
  } catch {
    // not JSON, or binary
  }
  const field = (name) => (typeof sent?.[name] === "string" ? sent[name].slice(0, MAX_TEXT).toWellFormed() : "");
  return { type: field("type"), name: field("name"), password: field("password"), text: field("text") };
}

export async function onMessage(session, message) {
  const { type, name, password, text } = fieldsOf(message);
  try {
    if (!["register", "login", "message", "logout"].includes(type)) {
      session.send(inJson("error", { text: "a message is JSON with a type: register, login, message or logout" }));
    } else if (session.user === null && !admit(session.getRemoteAddr())) {
      session.send(inJson("error", { text: "too many log-ins from your address: try again in a minute" }));
    } else if (session.user === null) {
      const token = await (type === "register" ? register : login)(name, password);
      session.send(inJson("token", { token, user: name }));
    } else if (type === "message" && text.trim() !== "") {
      session.room("lobby").broadcast(inJson("message", await save(session.user, text)));
    } else if (type === "logout") {
      await logout(session.user);
      user(session.user).close(4001, "logged out");
    }
  } catch (error) {
    const isTheirs = error.name === "LoginError";
    session.send(inJson("error", { text: isTheirs ? error.message : "the server has failed: try again" }));
    if (!isTheirs) throw error; // into the log
  }
}
