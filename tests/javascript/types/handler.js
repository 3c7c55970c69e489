// @ts-check
/** @type {import("wsthreads").OnMessage} */
export function onMessage(session, message) {
  session.room("x").broadcast(message);
  // @ts-expect-error
  session.sned(message);
}
