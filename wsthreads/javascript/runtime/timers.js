// setTimeout, setInterval and their clear functions. Times are milliseconds of `now`.
//
// A timer belongs to the version of the script whose top level set it, directly or in a timer's callback. It ends with
// that version, at a reload. A timer that was set in a session's call belongs to no version and continues after a
// reload, because the session stays: otherwise a promise that waits for the timer would never settle.
//
// QuickJS does not tell who owns a promise job. A job after a version's timer may be the rest of a session's call that
// has waited for that timer. So a timer that is set there continues after the reload as long as a call is pending that
// began before the reload. A job after a session's event counts as the session's, even if it is top-level code.

const MAX_DELAY_MS = 2 ** 31 - 1;

// Sorted by due time. Timers with the same due time are in the order in which they were set.
const timers = arrayOf();
const byId = newMap();
let lastTimer = 0;
const warnedOf = { __proto__: null };
// The version that new timers belong to, or null. The loop sets it for each event; promise jobs follow their event.
let owner = null;
// Whether the event's own call is over, so that promise jobs run.
let isInJob = false;

publish("setTimeout", function setTimeout(callback, delay, ...args) {
  return startTimer("setTimeout", callback, delay, args, false);
});
publish("setInterval", function setInterval(callback, delay, ...args) {
  return startTimer("setInterval", callback, delay, args, true);
});
publish("clearTimeout", clearTimer);
publish("clearInterval", clearTimer);

function startTimer(kind, callback, delay, args, repeats) {
  if (typeof callback !== "function") {
    throw new ERRORS.TypeError(`${kind} takes a function, not ${kindOf(callback)}`);
  }
  const period = periodOf(kind, delay);
  const timer = {
    __proto__: null, id: ++lastTimer, due: now() + period, period, repeats, callback, args, kind, owner, isInJob,
  };
  if (hasEnded(timer)) {
    return timer.id;
  }
  byId.set(timer.id, timer);
  enqueue(timer);
  return timer.id;
}

// As in Node, an invalid or too long delay counts as 1 ms. Each kind is logged once.
function periodOf(kind, delay) {
  const asked = toNumber(delay);
  if (asked >= 1 && asked <= MAX_DELAY_MS) {
    return asked;
  }
  const why = asked > MAX_DELAY_MS ? `longer than ${MAX_DELAY_MS} ms, about 24.8 days` :
    asked < 0 ? "negative" : asked !== asked && delay !== undefined ? "not a number" : "";
  if (why !== "" && warnedOf[why] !== true) {
    warnedOf[why] = true;
    python("console", 30, wire(`${kind} waits for 1 ms: the delay ${inspect(delay)} is ${why}`), callStack());
  }
  return 1;
}

function hasEnded(timer) {
  return timer.owner !== null && timer.owner.hasEnded && !(timer.isInJob && isCalled(timer.owner));
}

function clearTimer(id) {
  const timer = byId.get(id);
  if (timer !== undefined) {
    byId.delete(id);
    const place = timers.indexOf(timer, firstAfter(timer.due - 1));
    if (place >= 0) {
      timers.splice(place, 1);
    }
  }
}

function enqueue(timer) {
  timers.splice(firstAfter(timer.due), 0, timer);
}

// The index of the first timer that is due later than `due`.
function firstAfter(due) {
  let low = 0;
  let high = timers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (timers[middle].due > due) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// How long the loop may wait for an event: 0 if a timer is due, -1 if there is none.
function untilNextTimer() {
  return timers.length === 0 ? -1 : max(0, timers[0].due - now());
}

// Runs one timer, if one is due. An interval continues after its callback has returned or thrown, but not after the
// callback was stopped at its deadline.
function runTimer() {
  if (timers.length === 0 || timers[0].due > now() + 1) {
    return;
  }
  const timer = timers[0];
  timers.splice(0, 1);
  if (!timer.repeats || hasEnded(timer)) {
    byId.delete(timer.id);
  }
  if (hasEnded(timer)) {
    return;
  }
  owner = timer.owner;
  try {
    apply(timer.callback, undefined, timer.args);
  } catch (error) {
    python("failed", `a callback of ${timer.kind}`, null, describe(error));
  }
  isInJob = true;
  if (timer.repeats && byId.has(timer.id)) {
    timer.due = max(timer.due + timer.period, now());
    enqueue(timer);
  }
}
