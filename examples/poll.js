// A poll with a correct count over any number of processes: ws://127.0.0.1:5000/ws/poll?user=ann&room=lunch
// Its page is public/poll. A client sends its choice as text, and may change its mind. A client receives:
//
//   { type: "poll", changes, counts: { Soup: 2, … }, mine }    first; mine: this user's choice, or null
//   { type: "poll", changes, counts }                          after each vote
//
// The votes are an attribute of the room, which all processes share. updateAttribute() is atomic. But of two processes,
// the second to vote may be the first to broadcast. So each result has a number, and the page ignores older ones.

const CHOICES = ["Soup", "Salad", "Pizza"];
const MAX_NAME = 40;

function nameFrom(visitor, parameter) {
  const name = (visitor.getParameter(parameter) || "").trim();
  return [...name].slice(0, MAX_NAME).join("").trim();
}

export function onHandshake(request) {
  const name = nameFrom(request, "user");
  if (!name) return { close: 4000, reason: "say who you are: ?user=ann" };
  request.setUser(name); // This demo accepts any name. A real site uses its login: docs/how-to/handshakes.rst.
}

export function onOpen(session) {
  const room = session.room(nameFrom(session, "room") || "lunch");
  session.setAttribute("room", room);
  room.join();
  const poll = room.getAttribute("poll") ?? { changes: 0, votes: {} };
  const mine = Object.hasOwn(poll.votes, session.user) ? poll.votes[session.user] : null;
  session.send(JSON.stringify({ ...resultOf(poll), mine }));
}

export function onMessage(session, choice) {
  if (!CHOICES.includes(choice)) return;
  const room = session.getAttribute("room");
  const poll = room.updateAttribute("poll", (before) => ({
    changes: (before?.changes ?? 0) + 1,
    votes: { ...before?.votes, [session.user]: choice }, // 64 KiB (max_room_bytes) are about 2,000 votes
  }));
  room.broadcast(JSON.stringify(resultOf(poll)));
}

function resultOf({ changes, votes }) {
  const counts = Object.fromEntries(CHOICES.map((choice) => [choice, 0]));
  for (const choice of Object.values(votes)) counts[choice] += 1;
  return { type: "poll", changes, counts };
}
