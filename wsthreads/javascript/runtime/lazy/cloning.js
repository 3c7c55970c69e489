// structuredClone (https://html.spec.whatwg.org/#structured-cloning).

const { DOMException, kindOf, isHostObject } = tools;

const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

// Recognizes an object with any prototype: by a method that works only on objects of that kind.
const is = (read) => (value) => {
  try {
    read(value);
    return true;
  } catch {
    return false;
  }
};
const getter = (prototype, name) => {
  const { get } = Object.getOwnPropertyDescriptor(prototype, name);
  return (value) => Reflect.apply(get, value, []);
};
const method = (prototype, name) => {
  const found = prototype[name];
  return (value, ...others) => Reflect.apply(found, value, others);
};
const TypedArray = Object.getPrototypeOf(Uint8Array);
const kindOfView = getter(TypedArray.prototype, Symbol.toStringTag);
const isMap = is(getter(Map.prototype, "size"));
const isSet = is(getter(Set.prototype, "size"));
const isDate = is(method(Date.prototype, "getTime"));
const sourceOf = getter(RegExp.prototype, "source");
const flagsOf = getter(RegExp.prototype, "flags");
const isRegExp = is(sourceOf);
const isBuffer = is(getter(ArrayBuffer.prototype, "byteLength"));
const isShared = is(getter(SharedArrayBuffer.prototype, "byteLength"));
const isDataView = is(getter(DataView.prototype, "buffer"));
const boxes = [Number, String, Boolean, BigInt].map((Box) => method(Box.prototype, "valueOf"));
const has = {};
const refused = [
  is((value) => method(WeakMap.prototype, "has")(value, has)), is((value) => method(WeakSet.prototype, "has")(value, has)),
  is(method(WeakRef.prototype, "deref")), is(method(Symbol.prototype, "valueOf")),
  (value) => value instanceof Promise || isGenerator(value),
];

function isGenerator(value) {
  return /^\[object (Async)?Generator\]$/.test(Object.prototype.toString.call(value));
}

function structuredClone(value, options = {}) {
  if (arguments.length === 0) {
    throw new TypeError("structuredClone takes a value");
  }
  const transfer = [...options?.transfer ?? []];
  transfer.forEach((buffer, index) => {
    if (!isBuffer(buffer) || buffer.detached || transfer.indexOf(buffer) !== index) {
      throw new DOMException(`${kindOf(buffer)} cannot be transferred: only an ArrayBuffer can, once`, "DataCloneError");
    }
  });
  const seen = new Map();
  for (const buffer of transfer) {
    seen.set(buffer, buffer.slice(0));
  }
  const result = cloned(value, seen);
  for (const buffer of transfer) {  // from here on nothing can fail
    buffer.transfer();
  }
  return result;
}

function refuse(what) {
  throw new DOMException(`${what} cannot be cloned`, "DataCloneError");
}

function cloned(value, seen) {
  if (typeof value === "function") {
    refuse(`the function ${value.name}`.trim());
  }
  if (typeof value === "symbol") {
    refuse(String(value));
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  if (seen.has(value)) {
    return seen.get(value);
  }
  const keep = (copy) => {
    seen.set(value, copy);
    return copy;
  };
  if (Array.isArray(value)) {
    const copy = keep([]);
    copy.length = value.length;
    return withProperties(copy, value, seen);
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype === Object.prototype) {
    return withProperties(keep({}), value, seen);
  }
  if (Error.isError(value) || value instanceof DOMException) {
    return clonedError(value, keep, seen);
  }
  if (isDate(value)) {
    return keep(new Date(Date.prototype.getTime.call(value)));
  }
  if (isRegExp(value)) {
    return keep(new RegExp(sourceOf(value), flagsOf(value)));
  }
  if (ArrayBuffer.isView(value)) {
    return clonedView(value, keep, seen);
  }
  if (isBuffer(value)) {
    if (value.detached) {
      refuse("a detached ArrayBuffer");
    }
    return keep(value.resizable ? resizableCopy(value) : ArrayBuffer.prototype.slice.call(value, 0));
  }
  if (isShared(value)) {
    return keep(value);
  }
  if (isMap(value)) {
    const copy = keep(new Map());
    for (const [key, one] of [...Map.prototype.entries.call(value)]) {
      copy.set(cloned(key, seen), cloned(one, seen));
    }
    return copy;
  }
  if (isSet(value)) {
    const copy = keep(new Set());
    for (const one of [...Set.prototype.values.call(value)]) {
      copy.add(cloned(one, seen));
    }
    return copy;
  }
  for (const unbox of boxes) {
    if (is(unbox)(value)) {
      return keep(Object(unbox(value)));
    }
  }
  if (isHostObject(value) || refused.some((isOne) => isOne(value))) {
    refuse(kindOf(value));
  }
  return withProperties(keep({}), value, seen);
}

function withProperties(copy, value, seen) {
  for (const key of Object.keys(value)) {
    if (Object.hasOwn(value, key)) {  // a getter before it may have removed it
      Object.defineProperty(copy, key, {
        value: cloned(value[key], seen), writable: true, enumerable: true, configurable: true,
      });
    }
  }
  return copy;
}

function clonedError(error, keep, seen) {
  if (error instanceof DOMException) {
    const copy = keep(new DOMException(error.message, error.name));
    Object.defineProperty(copy, "stack", { value: error.stack, writable: true, configurable: true });
    return copy;
  }
  const name = String(error.name);
  const Kind = Object.hasOwn(ERRORS, name) ? ERRORS[name] : Error;
  const made = keep(new Kind());
  for (const part of ["message", "stack", "cause"]) {
    const property = Object.getOwnPropertyDescriptor(error, part);
    if (property !== undefined && "value" in property) {
      const of = part === "cause" ? cloned(property.value, seen) : String(property.value);
      Object.defineProperty(made, part, { value: of, writable: true, configurable: true, enumerable: false });
    } else if (part === "stack") {
      delete made.stack;
    }
  }
  return made;
}

function clonedView(view, keep, seen) {
  const buffer = cloned(view.buffer, seen);
  if (isDataView(view)) {
    return keep(new DataView(buffer, view.byteOffset, view.byteLength));
  }
  return keep(new globalThis[kindOfView(view)](buffer, view.byteOffset, view.length));
}

function resizableCopy(buffer) {
  const copy = new ArrayBuffer(buffer.byteLength, { maxByteLength: buffer.maxByteLength });
  new Uint8Array(copy).set(new Uint8Array(buffer));
  return copy;
}

return { __proto__: null, structuredClone };
