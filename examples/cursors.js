// Everybody in a room sees the cursors of the others: ws://127.0.0.1:5000/ws/cursors?user=ann&room=board
// Its page is public/cursors. A client sends { x, y }, each from 0 to 1. A client receives:
//
//   { type: "welcome", people }                    the first message; people are those of room.presence()
//   { type: "presence", joined, left, changed }    people who joined or left
//   { type: "cursor", user, x, y }                 another user's new position
//
// Only the last position of each user matters. With `latest`, a slow client skips the older positions. A fast client
// gets all of them.

const MAX_NAME = 40;

function nameFrom(visitor, parameter) {
  const name = (visitor.getParameter(parameter) || "").trim();
  return [...name].slice(0, MAX_NAME).join("").trim();
}

export function onHandshake(request) {
  const name = nameFrom(request, "user");
  if (!name) return { close: 4000, reason: "say who you are: ?user=ann" };
  request.setUser(name); // This demo accepts any name. A real site uses its login: docs/how-to/handshakes.rst.
}

export function onOpen(session) {
  const room = session.room(nameFrom(session, "room") || "board");
  session.setAttribute("room", room);
  room.join({ presence: true });
  session.send(JSON.stringify({ type: "welcome", people: room.presence() }));
}

export function onMessage(session, message) {
  const { x, y } = JSON.parse(message);
  const cursor = JSON.stringify({ type: "cursor", user: session.user, x, y });
  session.getAttribute("room").broadcastExcept(cursor, { latest: session.user, keep: false });
}

export function onPresence(room, changes) {
  return JSON.stringify({ type: "presence", ...changes });
}
