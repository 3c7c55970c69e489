// setTimeout, setInterval and their clear functions. Times are milliseconds of `now`.

const MAX_DELAY_MS = 2 ** 31 - 1;

// Sorted by due time, those due together in the order in which they were set.
const timers = [];
let lastTimer = 0;

publish("setTimeout", function setTimeout(callback, delay, ...args) {
  return startTimer("setTimeout", callback, delay, args, false);
});
publish("setInterval", function setInterval(callback, delay, ...args) {
  return startTimer("setInterval", callback, delay, args, true);
});
publish("clearTimeout", clearTimer);
publish("clearInterval", clearTimer);

const byId = new Map();

function startTimer(kind, callback, delay, args, repeats) {
  if (typeof callback !== "function") {
    throw new TypeError(`${kind} takes a function, not ${kindOf(callback)}`);
  }
  const asked = Number(delay);  // as in Node: what is no delay is the shortest, and so is what is too long
  const period = asked >= 1 && asked <= MAX_DELAY_MS ? asked : 1;
  const timer = { id: ++lastTimer, due: now() + period, period, repeats, callback, args, kind };
  byId.set(timer.id, timer);
  enqueue(timer);
  return timer.id;
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

// The place of the first timer that is due later than `due`.
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
  return timers.length === 0 ? -1 : Math.max(0, timers[0].due - now());
}

// Runs one timer, if one is due. An interval goes on when its callback has ended, also by throwing, but not when the
// callback was stopped at its deadline.
function runTimer() {
  if (timers.length === 0 || timers[0].due > now() + 1) {
    return;
  }
  const [timer] = timers.splice(0, 1);
  if (!timer.repeats) {
    byId.delete(timer.id);
  }
  try {
    const { callback, args } = timer;
    callback(...args);
  } catch (error) {
    python("failed", `a callback of ${timer.kind}`, null, describe(error));
  }
  if (timer.repeats && byId.has(timer.id)) {
    timer.due = Math.max(timer.due + timer.period, now());
    enqueue(timer);
  }
}
