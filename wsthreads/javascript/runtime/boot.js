// What every other part of the runtime needs: the way to Python, and intrinsics taken before a script can replace them.
//
// The parts are joined into the body of one function in the order boot, inspect, console, timers, visitors, loop.
// Nothing of it is global but `console` and the timers: `python` and the rest are the runtime's own.
//
// Deadlines strike at any backward jump or call in here, too. So each change of the runtime's state is one
// operation of the engine (a Map.set, a splice), which is done or not done, never half done.

// Calls a function of Python's by its name. It is dukpy's, until "connect" brings the one of our C module.
let python = globalThis.call_python;
const { max_room_name_chars: MAX_ROOM_NAME_CHARS, has_engine: HAS_ENGINE } = globalThis.dukpy;

const now = performance.now.bind(performance);
const resolved = Promise.resolve.bind(Promise);
const { apply, getPrototypeOf } = Reflect;
const { isPrototypeOf } = Object.prototype;
const GENERATOR_FUNCTION = getPrototypeOf(function* () {});
const ASYNC_GENERATOR_FUNCTION = getPrototypeOf(async function* () {});
const { then } = Promise.prototype;
const { fromCharCode } = String;
const quote = JSON.stringify;

// dukpy sets the first two anew whenever it enters the interpreter.
function hideHost() {
  for (const name of ["call_python", "dukpy", "process", "require", "_dukpy_cjs_source_compiles",
    "_dukpy_eval_cjs_source"]) {
    delete globalThis[name];
  }
}

hideHost();

// Bytes cross in here, as an ArrayBuffer that the engine copies. Without an engine, as text of characters to U+00FF.
// So do long texts, as long as `python` is dukpy's, which would have each character quoted and parsed.
const parcel = { bytes: null, text: null };
let parcelsText = HAS_ENGINE;
const LONG_TEXT = 1024;  // Python has its own idea of it

const ERRORS = { __proto__: null, Error, RangeError, TypeError };

// The answer of a Python function; one that it refused comes as {error: class, message} and is thrown here.
function answered(answer) {
  if (typeof answer === "object" && answer !== null && !Array.isArray(answer)) {
    throw new ERRORS[answer.error](answer.message);
  }
  return answer;
}

function connect(bridge) {
  python = bridge;
  parcelsText = false;
}

function publish(name, value) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
}
