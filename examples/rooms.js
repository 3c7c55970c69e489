// A chat with any number of rooms, which users name: ws://127.0.0.1:5000/ws/rooms?user=alice&room=garden It sends the
// same messages as chat.js. Some also contain the number of members.

const MAX_NAME = 40;

function nameFrom(session, parameter, otherwise) {
  const name = (session.getParameter(parameter) || "").trim().slice(0, MAX_NAME);
  return name || otherwise;
}

export function onOpen(session) {
  const user = nameFrom(session, "user", "anonymous");
  const room = session.room(nameFrom(session, "room", "lobby"));
  session.setAttribute("user", user);
  session.setAttribute("room", room);
  room.join();
  const members = room.members();
  session.send(JSON.stringify({ type: "welcome", id: session.id, room: room.getName(), members }));
  room.broadcastExcept(JSON.stringify({ type: "join", user, members }));
}

export function onMessage(session, message) {
  session.getAttribute("room").broadcastExcept(JSON.stringify({
    type: "message",
    from: session.getAttribute("user"),
    text: message,
    timestamp: Date.now(),
  }));
}

export function onClose(session) {
  const room = session.getAttribute("room");
  // The session is still a member here, and is counted. Its membership ends when onClose returns.
  room.broadcastExcept(JSON.stringify({
    type: "leave",
    user: session.getAttribute("user"),
    members: room.members() - 1,
  }));
}
