// Used by all other parts of the runtime: the calls to Python, and the built-in functions. This part saves the built-in
// functions before a script can replace them.
//
// The parts are joined into the body of one function in the order boot, inspect, console, timers, options, objects,
// rooms, requests, lazy, module, calls, roomcalls, python, loop. The parts in the folder `lazy` are loaded when they are
// first used: see lazy.js.
//
// Only `console` and the timers are global. A script does not see `python` and the rest.
//
// A script may change any object that it can reach: Array.prototype, Map.prototype.get, Promise.resolve. So the other
// parts follow three rules. They call no method of the standard library by its name, only the functions saved here.
// They read arrays by index, since spread, destructuring and `for … of` use an iterator. And they read no property that
// the script may have set on a prototype. So a script never gets an object of the runtime.
//
// A deadline may also stop the runtime, at any backward jump or call. So each change of the runtime's state is one
// operation of the engine (a Map.set, a splice), which is done fully or not at all.

// Calls a Python function by name. It is dukpy's function until `connect` replaces it by that of our C module.
let python = globalThis.call_python;
const {
  max_room_name_chars: MAX_ROOM_NAME_CHARS, max_user_chars: MAX_USER_CHARS, max_id_chars: MAX_ID_CHARS,
  max_ban_s: MAX_BAN_S, max_history: MAX_HISTORY, max_members: MAX_MEMBERS, has_engine: HAS_ENGINE, env: GIVEN_ENV,
} = globalThis.dukpy;

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
const OBJECT = Object.prototype;
const NUMBER_PROTOTYPE = Number.prototype;
const valueOfNumber = Number.prototype.valueOf;
const ASYNC_ITERATOR = Symbol.asyncIterator;
const { fromCharCode } = String;
const quote = JSON.stringify;
const evaluate = eval;  // in the global scope
const toNumber = Number;
const toText = String;
const TheArray = Array;
const TheMap = Map;
const ThePromise = Promise;
const Bytes = Uint8Array;

const ERRORS = { __proto__: null, Error, RangeError, TypeError };
const ERROR_PROTOTYPE = Error.prototype;

// A method or a getter of the standard library, as a function of the object and at most one argument.
const asFunction = (method) => (object, argument) => apply(method, object, [argument]);
const asGetter = (prototype, name) => asFunction(getOwnPropertyDescriptor(prototype, name).get);

const codeAt = asFunction(String.prototype.charCodeAt);
const inLowerCase = asFunction(String.prototype.toLowerCase);
const hasText = asFunction(String.prototype.includes);
const sliceOfText = String.prototype.slice;
const joinTexts = Array.prototype.join;
const upTo = (text, end) => apply(sliceOfText, text, [0, end]);

const TYPED_ARRAY = getPrototypeOf(Uint8Array.prototype);
const bufferOfView = asGetter(TYPED_ARRAY, "buffer");
const startOfView = asGetter(TYPED_ARRAY, "byteOffset");
const bytesOfView = asGetter(TYPED_ARRAY, "byteLength");
const bytesOfBuffer = asGetter(ArrayBuffer.prototype, "byteLength");
const bytesOfSharedBuffer = asGetter(SharedArrayBuffer.prototype, "byteLength");

// The runtime's own maps and arrays. Their prototypes are these objects, which a script cannot reach. Only single
// values are passed to Python, because JSON.stringify calls toJSON and uses ordinary arrays, which a script can break.
// (Without our C module, dukpy makes an array of the values: there, a script's Array.prototype.toJSON ends the
// isolate.)
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

// A registry that calls `callback` with an object's held value, some time after nothing refers to the object.
function newRegistry(callback) {
  const registry = new TheFinalizationRegistry(callback);
  return {
    __proto__: null,
    register: (object, held, token = undefined) => void apply(registerFor, registry, [object, held, token]),
    unregister: (token) => void apply(unregisterFrom, registry, [token]),
  };
}

const TheFinalizationRegistry = FinalizationRegistry;
const { register: registerFor, unregister: unregisterFrom } = FinalizationRegistry.prototype;

// dukpy sets the first two again whenever it enters the interpreter.
const HOST = arrayOf("call_python", "dukpy", "process", "require", "_dukpy_cjs_source_compiles",
  "_dukpy_eval_cjs_source");

function hideHost() {
  for (let index = 0; index < HOST.length; index++) {
    deleteProperty(globalThis, HOST[index]);
  }
}

hideHost();

// The engine would call this property with the frames of a stack. A frame gives access to its function.
deleteProperty(Error, "prepareStackTrace");

// In this version of the engine, both give access to memory beyond the buffer: `grow` allocates no memory, and `sort`
// of a typed array does not notice that its comparison has called `resize`.
deleteProperty(SharedArrayBuffer.prototype, "grow");
deleteProperty(ArrayBuffer.prototype, "resize");

// The engine calls this method for each template literal. The runtime has many, and would call the script's method.
defineProperty(String.prototype, "concat", { __proto__: null, writable: false, configurable: false });

// The parcel carries bytes between the languages, as an ArrayBuffer that the engine copies. (Without an engine, bytes
// travel as text of characters up to U+00FF.) The parcel also carries parts of the runtime. While `python` is dukpy's
// function, it carries long texts, too, because dukpy would quote and parse each character.
const parcel = { __proto__: null, bytes: null, text: null, part: null };
let parcelsText = HAS_ENGINE;
const LONG_TEXT = 1024;  // for texts to Python; for the other direction, Python has a limit

// The answer of a Python function. An error arrives as {error: class, message}, and is thrown here.
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
