// A chat room. All sessions share the variables of this file; no two of its calls overlap.

/** @type {import("wsthreads").OnOpen} */
export function onOpen(session) {
  const user = session.getParameter("user") || "anonymous";
  session.setAttribute("user", user);
  const room = session.room("chat");
  room.join();
  room.broadcast(JSON.stringify({ type: "join", user, members: room.members() }));
}

/** @type {import("wsthreads").OnMessage} */
export function onMessage(session, message) {
  const user = session.getAttribute("user");
  session.room("chat").broadcast(JSON.stringify({ type: "message", user, text: String(message) }));
}

/** @type {import("wsthreads").OnClose} */
export function onClose(session) {
  // Not open any more, but still a member of its rooms, which it leaves by itself afterwards.
  const room = session.room("chat");
  room.broadcastExcept(JSON.stringify({ type: "leave", user: session.getAttribute("user"), members: room.members() - 1 }));
}
