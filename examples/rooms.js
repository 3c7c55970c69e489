// A chat with as many rooms as its users think of: ws://127.0.0.1:5000/ws/rooms?user=alice&room=garden
// The messages are those of chat.js, and some say how many members the room has.

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
  // Here the session is still a member, and counted; when onClose returns, it is not.
  room.broadcastExcept(JSON.stringify({
    type: "leave",
    user: session.getAttribute("user"),
    members: room.members() - 1,
  }));
}
