import { room, session as peer, sessions, user } from "wsthreads";
import type { OnMessage, OnPost, OnPresence, OnRequest, OnSuspend, OnTick, Session, OnHandshake, TickRate } from "wsthreads";

export function onOpen(session: Session): void {
  // @ts-expect-error an object is no message
  session.send({ type: "welcome" });
  // @ts-expect-error read-only
  session.id = "x";
  // @ts-expect-error misspelt
  session.room("chat").broadcastexcept("x");
  // @ts-expect-error a code is a number
  session.close("4000");
  // @ts-expect-error may be null
  session.getParameter("user").length;
  // @ts-expect-error may be a number, or null
  session.getPathParameter("room").length;
  // @ts-expect-error a time is a number of seconds
  session.setExpiry("2030-01-01");
  // @ts-expect-error not a function
  setTimeout("x", 3);
  // @ts-expect-error a room has a name
  session.room();
  // @ts-expect-error a room of nobody cannot be joined
  room("x").join();
  // @ts-expect-error misspelt
  session.room("x").join({ presense: 1 });
  // @ts-expect-error a value is needed
  session.room("x").setPresence();
  // @ts-expect-error seconds are a number
  user("ann").close(4003, "", { banS: "60" });
  // @ts-expect-error misspelt
  user("ann").close(4003, "", { bans: 60 });
  // @ts-expect-error an id is text
  peer(7);
  // @ts-expect-error may be null
  session.user.length;
  // @ts-expect-error read-only
  session.user = "eve";
  // @ts-expect-error a key is text
  session.send("x", { latest: 1 });
  // @ts-expect-error misspelt
  room("x").broadcast("x", { kept: false });
  // @ts-expect-error a number of messages is needed
  room("x").history();
  // @ts-expect-error a position is text
  session.room("x").join({ since: 5 });
  // @ts-expect-error misspelt
  session.room("x").join({ max_members: 4 });
  // @ts-expect-error it must return the new value
  const n: number = room("x").updateAttribute("k", (value) => "text");
  // @ts-expect-error only an owner has one
  room("x").fencingNumber;
  // @ts-expect-error a value is needed
  room("x").post();
  // @ts-expect-error an object is no request
  session.request({ ask: "who?" });
  // @ts-expect-error misspelt
  session.request("who?", { timeout: 5 });
  // @ts-expect-error a reply comes later
  session.request("who?").length;
  // @ts-expect-error sessions is a function
  sessions.length.x;
}
// @ts-expect-error a rate is a number
export const tickRate: TickRate = "fast";
// @ts-expect-error a time is a number
export const onTick: OnTick = (room, dt) => { dt.slice(1); };
// @ts-expect-error may be null
export const onPost: OnPost = (room, value, from) => { room.broadcast(from.id); };
// @ts-expect-error a number is no message
export const onPresence: OnPresence = (room, changes) => changes.joined.length;
// @ts-expect-error a message may be binary
export const onMessage: OnMessage = (session, message) => { message.slice(1).toUpperCase(); };
// @ts-expect-error a number is no reply
export const onRequest: OnRequest = (session, message) => message.length;
// @ts-expect-error a text is no attributes
export const onSuspend: OnSuspend = () => "position";
// @ts-expect-error an object is no verdict
export const onHandshake: OnHandshake = () => ({ status: 401 });
// @ts-expect-error a code is a number
export const refuses: OnHandshake = () => ({ close: "4003" });
// @ts-expect-error an object is no body
fetch("https://example.org/", { method: "POST", body: { a: 1 } });
