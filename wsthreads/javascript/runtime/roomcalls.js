// The functions of rooms: onRoomStart, onPost, onTick, onRoomEnd. Python passes many calls in one event, for rooms that
// are due at the same time: an event for each call would cost more than a short onTick.
//
// A batch ends after SLICE_MS, and Python passes the rest again, after other waiting events. So the event's deadline
// works like a deadline for each call, and a thousand ticks delay no message for long. If a call returns a promise,
// only the other calls of the same room wait for the promise, in Python.

const SLICE_MS = 10;
const START = 0;
const POST = 1;
const TICK = 2;
const END = 3;
const HOOK_OF = arrayOf("onRoomStart", "onPost", "onTick", "onRoomEnd");

const ownedRooms = newMap();  // by name
// The number of calls begun in the last batch, and the time of the last one. Kept even if the batch was stopped.
const batch = { __proto__: null, isRunning: false, begun: 0, at: 0 };

// The event has four elements for each call: kind, name of the room, fencing number, and the function's argument.
function runRoomCalls(event) {
  batch.begun = 0;
  batch.isRunning = true;
  const began = batch.at = now();
  for (let at = 2; at < event.length; at += 4) {
    const index = batch.begun++;
    runRoomCall(event, index, event[at], event[at + 1], event[at + 2], event[at + 3]);
    const after = now();
    if (after - batch.at >= 1) {
      python("room_took", index, after - batch.at);
    }
    if (after - began > SLICE_MS) {
      break;
    }
    batch.at = after;
  }
  finishRoomCalls();
}

// Tells Python which calls were begun, also when the loop starts again after the last call was stopped.
function finishRoomCalls() {
  if (batch.isRunning) {
    batch.isRunning = false;
    python("rooms_ran", batch.begun);
  }
}

function runRoomCall(event, index, kind, name, fencingNumber, value) {
  const owned = ownedRoom(name, fencingNumber);
  if (owned.waitsIn === event) {  // an earlier call of this batch has returned a promise
    return;
  }
  if (kind === END) {
    endCall(owned);
    ownedRooms.delete(name);
  }
  const hook = HOOK_OF[kind];
  const handler = handlers[hook];
  if (handler === undefined) {
    return;
  }
  let isKnown = false;
  try {
    const { room } = owned;
    const result = kind === TICK ? handler(room, value) : kind === POST ? handler(room, parsed(value[0]), senderOf(value)) :
      handler(room);
    if (isThenable(result)) {
      awaitRoomCall(event, index, hook, owned, result);
    } else if (isGenerator(result)) {
      isKnown = true;
      throw notRun(hook);
    }
  } catch (error) {
    python("room_failed", index, name, hook, describe(error), isKnown);
  }
}

function awaitRoomCall(event, index, hook, owned, promise) {
  const ticket = owned.ticket = ++lastTicket;
  owned.waitsIn = event;
  beginCall(owned);
  python("room_pending", index, ticket, now() - batch.at);
  const settle = (hasFailed) => {
    if (owned.ticket === ticket) {
      owned.waitsIn = null;
      endCall(owned);
    }
    python("settled", ticket, hasFailed);
  };
  whenRun(hook, promise, () => settle(false), (error, isKnown) => {
    python("room_failed", -1, owned.name, hook, describe(error), isKnown);
    settle(true);
  });
}

function senderOf(value) {
  return value.length < 3 ? null : { id: value[1], user: value[2] ?? null };
}

// The runtime's data of a room that this process owns. A new fencing number is a new ownership.
function ownedRoom(name, fencingNumber) {
  let owned = ownedRooms.get(name);
  if (owned === undefined || owned.room.fencingNumber !== fencingNumber) {
    const room = new OwnedRoom(fencingNumber, name);
    owned = { __proto__: null, name, room, ticket: 0, waitsIn: null, calledIn: null };
    ownedRooms.set(name, owned);
  }
  return owned;
}
