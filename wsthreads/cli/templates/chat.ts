// A chat room. All sessions share the variables of this file. Its functions run one at a time.

import type { Received, Session } from "wsthreads";

export function onOpen(session: Session): void {
  const user = session.getParameter("user") || "anonymous";
  session.setAttribute("user", user);
  const room = session.room("chat");
  room.join();
  room.broadcast(JSON.stringify({ type: "join", user, members: room.members() }));
}

export function onMessage(session: Session, message: Received): void {
  const user: string = session.getAttribute("user");
  session.room("chat").broadcast(JSON.stringify({ type: "message", user, text: String(message) }));
}

export function onClose(session: Session): void {
  // The session is closed, but still in its rooms. It leaves them when this function returns.
  const user: string = session.getAttribute("user");
  const room = session.room("chat");
  room.broadcastExcept(JSON.stringify({ type: "leave", user, members: room.members() - 1 }));
}
