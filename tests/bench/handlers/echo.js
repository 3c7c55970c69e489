// Answers each message with itself.
export function onMessage(session, message) {
  session.send(message);
}
