// What every other part of the runtime needs: the way to Python, and intrinsics taken before a script can replace them.
//
// The parts are joined into the body of one function in the order boot, inspect, console, timers, objects, loop.
// Nothing of it is global but `console` and the timers: `python` and the rest are the runtime's own.
//
// A script may change any object that it can reach: Array.prototype, Map.prototype.get, Promise.resolve. So after this
// file the runtime calls no method of the standard library by its name, but those taken here; it goes through arrays by
// index, since spread, destructuring and `for … of` use an iterator; and it reads no property that a prototype of the
// script's could answer. What a script does about it is its own affair, but it gets nothing of the runtime's to see.
//
// Deadlines strike at any backward jump or call in here, too. So each change of the runtime's state is one
// operation of the engine (a Map.set, a splice), which is done or not done, never half done.

// Calls a function of Python's by its name. It is dukpy's, until "connect" brings the one of our C module.
let python = globalThis.call_python;
const { max_room_name_chars: MAX_ROOM_NAME_CHARS, has_engine: HAS_ENGINE } = globalThis.dukpy;

const now = performance.now.bind(performance);
const resolved = Promise.resolve.bind(Promise);
const { apply, defineProperty, deleteProperty, getOwnPropertyDescriptor, getPrototypeOf, setPrototypeOf } = Reflect;
const { freeze, hasOwn, keys: keysOf } = Object;
const { isPrototypeOf } = Object.prototype;
const { isArray } = Array;
const { isError } = Error;
const { isFinite, isInteger } = Number;
const { max, trunc } = Math;
const { isView } = ArrayBuffer;
const GENERATOR_FUNCTION = getPrototypeOf(function* () {});
const ASYNC_GENERATOR_FUNCTION = getPrototypeOf(async function* () {});
const GENERATOR = GENERATOR_FUNCTION.prototype;
const ASYNC_GENERATOR = ASYNC_GENERATOR_FUNCTION.prototype;
const { then } = Promise.prototype;
const { fromCharCode } = String;
const quote = JSON.stringify;
const toNumber = Number;
const toText = String;
const TheArray = Array;
const TheMap = Map;
const Bytes = Uint8Array;

const ERRORS = { __proto__: null, Error, RangeError, TypeError };
const ERROR_PROTOTYPE = Error.prototype;

// A method, or a getter, of the standard library's as a function of the object, and of one argument at most.
const asFunction = (method) => (object, argument) => apply(method, object, [argument]);
const asGetter = (prototype, name) => asFunction(getOwnPropertyDescriptor(prototype, name).get);

const codeAt = asFunction(String.prototype.charCodeAt);
const inLowerCase = asFunction(String.prototype.toLowerCase);
const sliceOfText = String.prototype.slice;
const upTo = (text, end) => apply(sliceOfText, text, [0, end]);

const TYPED_ARRAY = getPrototypeOf(Uint8Array.prototype);
const bufferOfView = asGetter(TYPED_ARRAY, "buffer");
const startOfView = asGetter(TYPED_ARRAY, "byteOffset");
const bytesOfView = asGetter(TYPED_ARRAY, "byteLength");
const bytesOfBuffer = asGetter(ArrayBuffer.prototype, "byteLength");
const bytesOfSharedBuffer = asGetter(SharedArrayBuffer.prototype, "byteLength");

// The runtime's own maps and arrays, whose methods are these, and which have nothing else for a prototype. To Python go
// only single values: the engine's JSON.stringify asks for a toJSON, and has arrays of its own that a script can break.
// (Without our C module dukpy makes an array of the values: there an Array.prototype.toJSON is the end of the isolate.)
const MAP = { __proto__: null };
for (const name of ["get", "set", "has", "delete", "forEach"]) {
  MAP[name] = Map.prototype[name];
}
freeze(MAP);
const ARRAY = freeze({ __proto__: null, indexOf: Array.prototype.indexOf, splice: Array.prototype.splice });

function newMap() {
  const map = new TheMap();
  setPrototypeOf(map, MAP);
  return map;
}

function arrayOf(...items) {
  setPrototypeOf(items, ARRAY);
  return items;
}

function append(array, item) {
  array[array.length] = item;
}

// dukpy sets the first two anew whenever it enters the interpreter.
const HOST = arrayOf("call_python", "dukpy", "process", "require", "_dukpy_cjs_source_compiles",
  "_dukpy_eval_cjs_source");

function hideHost() {
  for (let index = 0; index < HOST.length; index++) {
    deleteProperty(globalThis, HOST[index]);
  }
}

hideHost();

// The engine asks this property for what makes a stack of its frames, and a frame gives away its function.
deleteProperty(Error, "prepareStackTrace");

// Bytes cross in here, as an ArrayBuffer that the engine copies. Without an engine, as text of characters to U+00FF.
// So do long texts, as long as `python` is dukpy's, which would have each character quoted and parsed.
const parcel = { __proto__: null, bytes: null, text: null };
let parcelsText = HAS_ENGINE;
const LONG_TEXT = 1024;  // Python has its own idea of it

// The answer of a Python function; one that it refused comes as {error: class, message} and is thrown here.
function answered(answer) {
  if (typeof answer === "object" && answer !== null && !isArray(answer)) {
    throw new ERRORS[answer.error](answer.message);
  }
  return answer;
}

function connect(bridge) {
  python = bridge;
  parcelsText = false;
}

function publish(name, value) {
  defineProperty(globalThis, name, { __proto__: null, value, writable: true, configurable: true, enumerable: false });
}
