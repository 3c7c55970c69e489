// One room: each message goes to everybody in it, its sender included.
export function onOpen(session) {
  session.room("bench").join();
}

export function onMessage(session, message) {
  session.room("bench").broadcast(message);
}
