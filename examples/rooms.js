// A chat with any number of rooms, which users name: ws://127.0.0.1:5000/ws/rooms?user=alice&room=garden
// It shows who is present and who is typing, and has private messages. New members see the last 50 messages. After a
// lost connection, a client connects with `since`, the last position that it received, and misses nothing. Run it with
//
//   wsthreads run rooms.js --history-messages 1000 --static public --serve-client
//
// The messages are JSON. A client sends:
//
//   { type: "message", text }        to everybody in the room
//   { type: "private", to, text }    to one user, in any room
//   { type: "typing", typing }       whether the user is typing: true or false
//
// A client receives these, including its own messages, so that a user's other tabs show them, too:
//
//   { type: "message", id, from, text, timestamp, position }    first earlier ones: the last 50, or all after `since`
//   { type: "welcome", id, room, people, complete, position }   then this; people are those of room.presence();
//                                                               complete: false if messages after `since` are missing
//   { type: "presence", joined, left, changed }                 people who have come, gone, or begun or ended to type
//   { type: "private", from, to, text, timestamp }
//   { type: "absent", to, text }                                a private message that nobody was there to receive

import { user } from "wsthreads";

const SHOWN = 50;
const MAX_NAME = 40;

function nameFrom(visitor, parameter) {
  const name = (visitor.getParameter(parameter) || "").trim();
  return [...name].slice(0, MAX_NAME).join("").trim();
}

export function onHandshake(request) {
  const name = nameFrom(request, "user");
  if (!name) return { close: 4000, reason: "say who you are: ?user=alice" };
  request.setUser(name); // This demo accepts any name. A real site uses its login: docs/how-to/handshakes.rst.
}

export function onOpen(session) {
  const room = session.room(nameFrom(session, "room") || "lobby");
  session.setAttribute("room", room);
  const { complete } = room.join({ presence: { typing: false }, history: SHOWN, since: session.getParameter("since") });
  const [people, position] = [room.presence(), room.position()];
  session.send(JSON.stringify({ type: "welcome", id: session.id, room: room.getName(), people, complete, position }));
}

export function onPresence(room, changes) {
  return JSON.stringify({ type: "presence", ...changes });
}

export function onMessage(session, message) {
  const room = session.getAttribute("room");
  const { type, to, text, typing } = JSON.parse(message);
  const letter = { type, from: session.user, text, timestamp: Date.now() };
  if (type === "typing") {
    room.setPresence({ typing: typing === true });
  } else if (type === "message") {
    room.setPresence({ typing: false });
    say(room, letter);
  } else if (type === "private" && user(to).isOnline()) {
    for (const name of new Set([to, session.user])) user(name).send(JSON.stringify({ ...letter, to }));
  } else if (type === "private") {
    session.send(JSON.stringify({ type: "absent", to, text }));
  }
}

/**
 * The position is the one before this message. So a client that connects with it receives the message again, and
 * perhaps others that were sent at the same moment. It recognizes them by their id.
 */
function say(room, letter) {
  const id = Math.random().toString(36).slice(2);
  room.broadcast(JSON.stringify({ ...letter, id, position: room.position() }));
}
