// A chat room. All sessions share the variables of this file. Its functions run one at a time.

/** @type {import("wsthreads").OnHandshake} */
export function onHandshake(request) {
  const user = request.getHeader("X-User"); // from app.py, never from a client
  if (!user) return 401;
  request.setUser(user);
}

/** @type {import("wsthreads").OnOpen} */
export function onOpen(session) {
  const user = session.user;
  const room = session.room(session.getParameter("room") || "lobby");
  room.join();
  room.broadcast(JSON.stringify({ type: "join", user, members: room.members() }));
}

/** @type {import("wsthreads").OnMessage} */
export function onMessage(session, message) {
  const user = session.user;
  for (const name of session.rooms()) {
    session.room(name).broadcast(JSON.stringify({ type: "message", user, text: String(message) }));
  }
}

/** @type {import("wsthreads").OnClose} */
export function onClose(session) {
  // The session is closed, but still in its rooms. It leaves them when this function returns.
  const user = session.user;
  for (const name of session.rooms()) {
    const room = session.room(name);
    room.broadcastExcept(JSON.stringify({ type: "leave", user, members: room.members() - 1 }));
  }
}
