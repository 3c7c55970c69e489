// A chat with any number of rooms, which users name: ws://127.0.0.1:5000/ws/rooms?user=alice&room=garden
// It shows who is there and who is typing, and has private messages. The messages are JSON. A client sends:
//
//   { type: "message", text }        to everybody in the room
//   { type: "private", to, text }    to one user, in any room
//   { type: "typing", typing }       whether the user is typing: true or false
//
// A client receives, also what it has sent itself, so that a user's other tabs show it, too:
//
//   { type: "welcome", id, room, people }          the first message; people are those of room.presence()
//   { type: "presence", joined, left, changed }    people who have come, gone, or begun or ended to type
//   { type: "message" or "private", from, to, text, timestamp }
//   { type: "absent", to, text }                   a private message that nobody was there to receive

import { user } from "wsthreads";

const MAX_NAME = 40;

function nameFrom(visitor, parameter) {
  const name = (visitor.getParameter(parameter) || "").trim();
  return [...name].slice(0, MAX_NAME).join("").trim();
}

export function onHandshake(request) {
  const name = nameFrom(request, "user");
  if (!name) return { close: 4000, reason: "say who you are: ?user=alice" };
  request.setUser(name); // A demo: it believes any name. A real site takes it from its login: docs/how-to/handshakes.rst.
}

export function onOpen(session) {
  const room = session.room(nameFrom(session, "room") || "lobby");
  session.setAttribute("room", room);
  room.join({ presence: { typing: false } });
  session.send(JSON.stringify({ type: "welcome", id: session.id, room: room.getName(), people: room.presence() }));
}

export function onPresence(room, changes) {
  return JSON.stringify({ type: "presence", ...changes });
}

export function onMessage(session, message) {
  const room = session.getAttribute("room");
  const { type, to, text, typing } = JSON.parse(message);
  const letter = JSON.stringify({ type, from: session.user, to, text, timestamp: Date.now() });
  if (type === "typing") {
    room.setPresence({ typing: typing === true });
  } else if (type === "message") {
    room.setPresence({ typing: false });
    room.broadcast(letter);
  } else if (type === "private" && user(to).isOnline()) {
    user(to).send(letter);
    if (to !== session.user) user(session.user).send(letter);
  } else if (type === "private") {
    session.send(JSON.stringify({ type: "absent", to, text }));
  }
}
