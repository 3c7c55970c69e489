// A chat room. All sessions share the variables of this file. Its functions run one at a time.

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
  // The session is closed, but still in its rooms. It leaves them when this function returns.
  const room = session.room("chat");
  room.broadcastExcept(JSON.stringify({ type: "leave", user: session.getAttribute("user"), members: room.members() - 1 }));
}
