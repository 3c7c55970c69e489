import type { OnClose, Received, Request, Room, Session, Verdict } from "wsthreads";

export function onHandshake(request: Request): Verdict {
  const user: string | null = request.getHeader("X-User");
  request.setAttribute("user", user);
  if (request.getParameter("banned")) return { close: 4003, reason: "banned" };
  if (request.getParameter("gone")) return { close: 4004 };
  return user === null ? 401 : request.getSubprotocols()[0];
}
export async function onOpen(session: Session): Promise<void> {
  const room: Room = session.room("chat");
  room.join();
  const sent: boolean = session.send(new Uint8Array(3));
  session.send(new ArrayBuffer(1));
  setTimeout((text: string) => session.send(text), 10, "later");
  clearTimeout(setInterval(() => undefined));
  queueMicrotask(() => console.log("%s", session.id, room.members() + 1, sent));
}
export function onMessage(session: Session, message: Received) {
  if (typeof message === "string") session.room("chat").broadcast(message.slice(1));
  else session.room("chat").broadcastExcept(message);
  session.close(4000, "bye");
  const names: string[] = session.rooms();
  const user = session.getAttribute("user").name;
}
export const onClose: OnClose = (session, code, reason) => {
  session.room("chat").broadcastExcept(`${code + 1} ${reason.slice(1)}`);
};
