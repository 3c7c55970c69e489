// Requests in both directions: a client asks for a seat, and the server asks who has it.
//
//   wsthreads run seats.js --resume-s 60
//   ws://127.0.0.1:5000/ws/seats?user=ann
//
// A client needs the protocol wsthreads.1, which wsthreads.js and wsthreads.Client have. It sends a request with the
// name of a seat, and gets the reply "A1 is yours", or the error "bob keeps A1". If somebody has the seat, that client
// gets the request "ann asks for A1", and gives up the seat with the reply "yes". A lost connection changes nothing:
// requests and replies wait until the client is back, at most 60 s. seats.py is the same in Python.

import { RequestError } from "wsthreads";

const ANSWER_MS = 20_000;
const holders = new Map(); // seat → session

export function onHandshake(request) {
  const name = request.getParameter("user");
  if (!name) return { close: 4000, reason: "say who you are: ?user=ann" };
  request.setUser(name); // This demo accepts any name. A real site uses its login: docs/how-to/handshakes.rst.
}

export async function onRequest(session, seat) {
  if (!/^[A-F][1-9]$/.test(seat)) throw new RequestError("there are seats A1 to F9");
  const holder = holders.get(seat);
  if (holder !== undefined && holder !== session) {
    if (await answerOf(holder, `${session.user} asks for ${seat}`) !== "yes") {
      throw new RequestError(`${holder.user} keeps ${seat}`);
    }
    // Other calls ran during the await.
    if (holders.get(seat) !== holder) throw new RequestError(`the holder of ${seat} has just changed`);
  }
  if (!session.isOpen()) throw new RequestError("you have left"); // onClose waits for this call, and gives the seat back
  holders.set(seat, session);
  return `${seat} is yours`;
}

async function answerOf(session, question) {
  try {
    return await session.request(question, { timeoutMs: ANSWER_MS });
  } catch (error) { // a RequestTimeout, a SessionClosed, or a RequestError: the client refuses to answer
    return `no: ${error.message}`;
  }
}

export function onClose(session) {
  for (const [seat, holder] of holders) {
    if (holder === session) holders.delete(seat);
  }
}
