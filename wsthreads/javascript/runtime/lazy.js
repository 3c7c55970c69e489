// Parts of the runtime that are loaded when a script first uses them, from the folder `lazy`. Unused parts cost neither
// time nor memory.
//
// A part is the body of a function of `tools`, and returns an object. It may be loaded long after the script has
// changed the standard library, so the parts that write logs take the saved functions from `tools` and follow the rules
// of boot.js. The web's globals also use methods that a script may have changed: such a script can see their data, and
// break them for itself. No part gives the script `tools`, or a function of it.

const parts = newMap();
let tools = null;

function part(name) {
  let found = parts.get(name);
  if (found === undefined) {
    tools ??= makeTools();
    found = compiled(name)(tools);
    parts.set(name, found);
  }
  return found;
}

// The web's globals, by part. The first use of a global loads its part.
const GLOBALS = {
  __proto__: null,
  encoding: ["TextEncoder", "TextDecoder", "atob", "btoa"],
  events: ["Event", "CustomEvent", "EventTarget"],
  aborting: ["AbortController", "AbortSignal"],
  cloning: ["structuredClone"],
  url: ["URL", "URLSearchParams"],
  headers: ["Headers"],
  fetch: ["fetch", "Request", "Response"],
  crypto: ["crypto", "Crypto", "CryptoKey", "SubtleCrypto"],
};

for (const [partName, names] of Object.entries(GLOBALS)) {
  for (const name of names) {
    defineProperty(globalThis, name, {
      __proto__: null,
      get() {
        const value = part(partName)[name];
        publish(name, value);
        return value;
      },
      set(value) {
        publish(name, value);
      },
      configurable: true,
      enumerable: false,
    });
  }
}

// The `timeOrigin` of QuickJS counts from the start of the machine. By the standard, it is a time as in Date.now().
const timeOrigin = Date.now() - now();
publish("performance", freeze({ now, timeOrigin, toJSON: () => ({ timeOrigin }) }));

function compiled(name) {
  if (!HAS_ENGINE) {
    return evaluate(answered(python("source_of_part", name)));
  }
  if (!answered(python("load_part", name))) {
    throw new ERRORS.RangeError(`there is no time or no memory left to load the runtime's part ${name}`);
  }
  const { part } = parcel;
  parcel.part = null;
  return part;
}

function makeTools() {
  return {
    __proto__: null,
    // from boot
    apply, defineProperty, getOwnPropertyDescriptor, getPrototypeOf, hasOwn, keysOf, isArray, isFinite, isView, max, codeAt,
    sliceOfText, toText, newMap, newRegistry, arrayOf, append, now, ERRORS, lengthOfView, bytesOfBuffer, bytesOfSharedBuffer,
    // from inspect
    mapEntries, nextOfMap, sizeOfMap, setValues, nextOfSet, sizeOfSet, textOfSymbol, kindOfView, attempt, newBudget, spent,
    cut, includes, headOf, looksLikeError, LARGEST, MAX_TEXT,
    // from console
    textOfFunction, formatted, prefixed, write, writeParts, callStack, indentation,
    // from objects
    Room, ENV, part, bytesOf, kindOf,
    // from rooms
    setHidden,
    // for the web's globals
    webClass, showAs, shownAs, isHostObject, encodeText, decodeBytes, DOMException: TheDOMException,
    encodeBase64: (text) => python("encode_base64", text), decodeBase64: (text) => python("decode_base64", text),
    textOfBytes, domainToASCII: (domain) => python("domain_to_ascii", domain),
    randomBytes: (count) => bytesFrom(answered(python("random_bytes", count))), randomUUID: () => python("random_uuid"),
    digest: (bytes, hash) => bytesFrom(withBytes(bytes, (data) => python("digest", data, hash))),
    hmac: (bytes, hash, key) => bytesFrom(withBytes(bytes, (data) => python("hmac", data, hash, textOfBytes(key)))),
    beginFetch: (number, method, url, headers, bytes, tell) => asked((ticket) => {
      tell(ticket);
      const send = (data) => python("fetch", ticket, number || ticket, method, url, headers, bytes !== null, data);
      return bytes === null ? send(null) : withBytes(bytes, send);
    }),
    readFetched: (number, wantsAll) => asked((ticket) => python("read_fetched", ticket, number, wantsAll)),
    takeFetched: (number) => bytesFrom(answered(python("take_fetched", number))),
    endFetch: (number) => void python("end_fetch", number),
    findEncoding: (label) => answered(python("find_encoding", label)),
    reportFailure: (what, error) => void python("failed", what, null, describe(error)),
    startTimeout: (callback, ms) => startTimer("AbortSignal.timeout", callback, ms < MAX_DELAY_MS ? max(1, ms) : MAX_DELAY_MS,
      [], false),
    // only for parts
    ...SAVED,
  };
}

const ownNamesOf = Object.getOwnPropertyNames;

const SAVED = {
  __proto__: null,
  min: Math.min, sqrt: Math.sqrt, round: Math.round, floor: Math.floor,
  symbolsOf: Object.getOwnPropertySymbols, objectPrototype: Object.prototype, TO_STRING_TAG: Symbol.toStringTag,
  isEnumerable: asFunction(Object.prototype.propertyIsEnumerable),
  toFixed: asFunction(Number.prototype.toFixed), hexOf: asFunction(Number.prototype.toString),
  inUpperCase: asFunction(String.prototype.toUpperCase),
  padStart: asFunction2(String.prototype.padStart), padEnd: asFunction2(String.prototype.padEnd),
  timeOf: asFunction(Date.prototype.getTime), isoOf: asFunction(Date.prototype.toISOString),
  sourceOfRegExp: asGetter(RegExp.prototype, "source"), flagsOfRegExp: asGetter(RegExp.prototype, "flags"),
  isInWeakMap: asFunction(WeakMap.prototype.has), isInWeakSet: asFunction(WeakSet.prototype.has),
  numberIn: asFunction(Number.prototype.valueOf), stringIn: asFunction(String.prototype.valueOf),
  booleanIn: asFunction(Boolean.prototype.valueOf), bigintIn: asFunction(BigInt.prototype.valueOf),
  symbolIn: asFunction(Symbol.prototype.valueOf),
};

function asFunction2(method) {
  return (object, first, second) => apply(method, object, [first, second]);
}

const TheDOMException = DOMException;

// Sets how the console shows objects with this prototype: the names of their getters, or a function of the object and
// of `add(key, value)`.
const shownAs = newMap();

function showAs(prototype, shown) {
  shownAs.set(prototype, shown);
}

// Makes a class look like the web's: methods are enumerable, objects have a tag, and the console shows these getters.
function webClass(made, name, shown) {
  const { prototype } = made;
  const names = ownNamesOf(prototype);
  for (let at = 0; at < names.length; at++) {
    if (names[at] !== "constructor") {
      defineProperty(prototype, names[at], { __proto__: null, enumerable: true });
    }
  }
  defineProperty(prototype, SAVED.TO_STRING_TAG, { __proto__: null, value: name, configurable: true });
  if (shown !== undefined) {
    showAs(prototype, shown);
  }
}

// Whether a value is an object that handlers receive, or an object of the web's.
function isHostObject(value) {
  return value instanceof Visitor || value instanceof Room || value instanceof User || value instanceof Peer ||
    shownAs.has(getPrototypeOf(value));
}

// Bytes for Python: in the parcel, or as text.

function withBytes(bytes, call) {
  if (!HAS_ENGINE) {
    return answered(call(textOfBytes(bytes)));
  }
  parcel.bytes = bufferOfView(bytes);
  const answer = call(null);
  if (answer !== true) {  // else the answer is in the parcel
    parcel.bytes = null;
  }
  return answered(answer);
}

// Bytes from Python, as the answer of a function.
function bytesFrom(answer) {
  if (typeof answer === "string") {
    return new Bytes(receivedBytes(answer));
  }
  const { bytes } = parcel;
  parcel.bytes = null;
  return new Bytes(bytes);
}

function encodeText(text) {
  return bytesFrom(answered(python("encode_text", text)));
}

// The text, and the state for the next part; undefined for malformed bytes.
function decodeBytes(bytes, encoding, isFatal, isLast, rest, flag) {
  return withBytes(bytes, (data) => python("decode_bytes", data, encoding, isFatal, isLast, rest, flag));
}
