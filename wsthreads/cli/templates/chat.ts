// A chat room. All sessions share the variables of this file; no two of its calls overlap.

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
  // Not open any more, but still a member of its rooms, which it leaves by itself afterwards.
  const user: string = session.getAttribute("user");
  const room = session.room("chat");
  room.broadcastExcept(JSON.stringify({ type: "leave", user, members: room.members() - 1 }));
}
