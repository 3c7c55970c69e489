// Answers each message with itself, and has 100,000 live objects: what a game or a cache may hold.
const objects = new Map();
for (let i = 0; i < 100_000; i++) objects.set(i, { id: i, next: objects.get(i - 1) });

export function onMessage(session, message) {
  if (objects.size !== 100_000) throw new Error("the objects are to stay");
  session.send(message);
}
