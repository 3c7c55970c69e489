import { RequestError, RequestTimeout, room, session as peer, sessions, user } from "wsthreads";
import type { Joined, OnClose, OnPost, OnPresence, OnRequest, OnResume, OnRoomStart, OnSuspend, OnTick, OwnedRoom, Peer, Person, Received, Request, Room, Sender, Session, SessionRoom, TickRate, User, UserSession, Verdict } from "wsthreads";

const lobby: Room = room("lobby");

export function onHandshake(request: Request): Verdict {
  const user: string | null = request.getHeader("X-User");
  request.setAttribute("user", user);
  request.setUser(user);
  request.setExpiry(1.8e9);
  if (request.getParameter("banned")) return { close: 4003, reason: "banned" };
  const table: string | number | null = request.getPathParameter("table");
  if (table === 13) return 404;
  if (request.getParameter("gone")) return { close: 4004 };
  return user === null ? 401 : request.getSubprotocols()[0];
}
export async function onOpen(session: Session): Promise<void> {
  const room: SessionRoom = session.room("chat");
  room.join();
  room.join({});
  room.join({ presence: { name: session.id } });
  room.setPresence(null);
  const shared: Room = room;
  const { joined, complete }: Joined = room.join({ history: 50, since: session.getParameter("since"), maxMembers: 4 });
  if (!joined || !complete) session.send(room.position(), { latest: "position" });
  const last: Received[] = shared.history(10);
  shared.broadcast(last[0], { keep: false, latest: "pos:ann" });
  room.broadcastExcept("x", { keep: true });
  const sent: boolean = session.send(new Uint8Array(3));
  session.send(new ArrayBuffer(1));
  setTimeout((text: string) => session.send(text), 10, "later");
  clearTimeout(setInterval(() => undefined));
  queueMicrotask(() => console.log("%s", session.id, room.members() + 1, sent));
}
export function onMessage(session: Session, message: Received) {
  if (typeof message === "string") session.room("chat").broadcast(message.slice(1));
  else session.room("chat").broadcastExcept(message);
  session.setExpiry(0);
  session.close(4000, "bye");
  const names: string[] = session.rooms();
  const user = session.getAttribute("user").name;
}
export const onRequest: OnRequest = async (session, message) => {
  if (typeof message !== "string") return message;
  if (message === "") throw new RequestError("say what");
  try {
    const reply: Received | null = await session.request("who?", { timeoutMs: 500 });
    return typeof reply === "string" ? reply.slice(1) : reply;
  } catch (error) {
    if (!(error instanceof RequestTimeout)) throw error;
  }
};
export const onSuspend: OnSuspend = (session) => ({ user: session.user, connected: session.isConnected() });
export const onResume: OnResume = async (session) => { session.send(session.getParameter("version") ?? ""); };
export const onClose: OnClose = (session, code, reason) => {
  session.room("chat").broadcastExcept(`${code + 1} ${reason.slice(1)}`);
};
export const onPresence: OnPresence = async (room, { joined, left, changed }) => {
  const persons: Person[] = [...joined, ...left, ...changed, ...room.presence()];
  if (persons.length) return `${persons[0].since + persons[0].sessions} ${persons[0].user?.length} ${room.getName()}`;
};
export function onReload(): void {
  const session: Session = sessions()[0];
  session.send(`${session.id} ${lobby.members()}`);
  lobby.broadcast("reloaded");
}
export const tickRate: TickRate = 20;
export const onTick: OnTick = (room, dt) => {
  const count: number = room.updateAttribute("ticks", (count = 0) => count + dt);
  if (room.isOwner()) room.setAttribute("count", { count, fence: room.fencingNumber + 1 });
};
export const onRoomStart: OnRoomStart = async (room) => { room.deleteAttribute("ticks"); };
export const onPost: OnPost = async (room, value, from) => {
  const sender: Sender | null = from;
  const owned: OwnedRoom = room;
  if (sender?.user) user(sender.user).send(`${value.x}`, { latest: "x" });
  peer(sender!.id).send(JSON.stringify([owned.getAttribute("count"), owned.getAttributes()]), { latest: null });
};
export async function onRoomEnd(room: OwnedRoom): Promise<void> {
  await lobby.post({ ended: room.getName() });
}
export function kick(name: string, id: string): void {
  const everywhere: User = user(name);
  everywhere.close();
  everywhere.close(4003, "kicked", { banS: 60 });
  everywhere.send(new Uint8Array(1));
  const devices: UserSession[] = everywhere.sessions();
  const one: Peer = peer(everywhere.isOnline() ? devices[0].id : id);
  if (one.isOpen() && one.send(`${devices[0].since + 1} ${everywhere.name} ${one.id}`)) one.close(4000);
  const nobody: string | null = sessions()[0].user;
  lobby.close(4000, "closed");
}
export function useTheWeb(): void {
  const bytes: Uint8Array = new TextEncoder().encode(btoa("text"));
  const text: string = new TextDecoder("utf-16", { fatal: true }).decode(bytes, { stream: true });
  const controller = new AbortController();
  const signal: AbortSignal = AbortSignal.any([controller.signal, AbortSignal.timeout(5)]);
  signal.addEventListener("abort", (event) => console.table(event.type), { once: true });
  const events: EventTarget = new EventTarget();
  if (events.dispatchEvent(new CustomEvent("x", { detail: text, cancelable: true }))) controller.abort();
  const copy: { a: number } = structuredClone({ a: performance.now() });
  console.assert(copy.a > 0, new DOMException("no", "AbortError").code);
  const id: string = crypto.randomUUID() + `${crypto.getRandomValues(bytes).buffer}`;
  const hmac = { name: "HMAC", hash: "SHA-256" };  // its type has texts
  crypto.subtle.importKey("raw", bytes, hmac, false, ["verify"]);
  crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"])
    .then((key) => crypto.subtle.sign("HMAC", key, bytes).then((signature: ArrayBuffer) => signature.byteLength));
}
export function useAddresses(): string {
  const url: URL = new URL("../b", new URL("https://example.org/a/"));
  url.searchParams.append("q", url.hostname);
  url.hash = "top";
  return URL.canParse(url) ? new URLSearchParams({ a: url.href }).toString() : `${URL.parse("x")}`;
}
export function useServices(): void {
  const headers: Headers = new Headers({ accept: "application/json" });
  const request = new Request(new URL("https://example.org/"), { method: "POST", body: "text", headers });
  fetch(request, { redirect: "manual", signal: AbortSignal.timeout(5) }).then((response: Response) => {
    const status: number = response.ok ? response.status : Response.json({ a: 1 }).status;
    const type: string | null = response.clone().headers.get("content-type");
    response.arrayBuffer().then((buffer: ArrayBuffer) => console.log(buffer.byteLength + status, type));
  });
}
