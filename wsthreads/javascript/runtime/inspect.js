// Values as text for logs. Nothing here throws, whatever the value does when it is looked at.

const MAX_DEPTH = 6;
const MAX_ENTRIES = 100;
const MAX_TEXT = 20000;

// An error with its stack and its causes, anything else as `inspect` shows it.
function describe(error) {
  try {
    if (error === null) {
      return "null was thrown, as the engine does where there is no memory left for an Error";
    }
    return isError(error) ? describeError(error, 0) : `${inspect(error)} was thrown, which is not an Error`;
  } catch {
    return "something was thrown that cannot be read";
  }
}

function isError(value) {
  try {
    return value instanceof Error;
  } catch {
    return false;  // a Proxy may throw here
  }
}

function describeError(error, depth) {
  let text = attempt(() => `${error.name}: ${error.message}`, "an Error that cannot be read");
  const stack = attempt(() => error.stack, "");
  if (typeof stack === "string" && stack !== "") {
    text += `\n${stack.trimEnd()}`;
  }
  const cause = attempt(() => error.cause, undefined);
  if (cause !== undefined && depth < MAX_DEPTH) {
    text += `\ncaused by ${isError(cause) ? describeError(cause, depth + 1) : inspect(cause)}`;
  }
  return text;
}

function attempt(read, otherwise) {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

// JSON where the value has one, and something readable where it has not: cycles, BigInt, Map, Set, functions, symbols.
function inspect(value) {
  let text;
  try {
    text = inspected(value, []);
  } catch {
    text = "[unreadable]";
  }
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

function inspected(value, parents) {
  switch (typeof value) {
    case "string": return quote(value);
    case "bigint": return `${value}n`;
    case "symbol": return value.toString();
    case "function": return attempt(() => `[function ${value.name || "anonymous"}]`, "[function]");
    case "object": return value === null ? "null" : inspectedObject(value, parents);
    default: return String(value);
  }
}

function inspectedObject(object, parents) {
  if (parents.includes(object)) {
    return "[circular]";
  }
  if (parents.length >= MAX_DEPTH) {
    return Array.isArray(object) ? "[…]" : "{…}";
  }
  const within = [...parents, object];
  const inner = (value) => attempt(() => inspected(value, within), "[unreadable]");
  if (isError(object)) {
    return describeError(object, parents.length);
  }
  if (Array.isArray(object)) {
    return `[${listed(object, object.length, inner)}]`;
  }
  if (object instanceof Map) {
    return `Map {${listed(object, object.size, ([key, value]) => `${inner(key)}:${inner(value)}`)}}`;
  }
  if (object instanceof Set) {
    return `Set {${listed(object, object.size, inner)}}`;
  }
  if (ArrayBuffer.isView(object) && !(object instanceof DataView)) {
    return `${object.constructor.name} [${listed(object, object.length, inner)}]`;
  }
  if (object instanceof ArrayBuffer) {
    return `ArrayBuffer (${object.byteLength} bytes)`;
  }
  if (object instanceof RegExp || object instanceof Promise || object instanceof WeakMap || object instanceof WeakSet) {
    return String(object);
  }
  if (typeof object.toJSON === "function") {
    return inspected(object.toJSON(), within);
  }
  const keys = Object.keys(object);
  return `{${listed(keys, keys.length, (key) => `${quote(key)}:${inner(ownValue(object, key))}`)}}`;
}

// The property without running a getter of the script's.
function ownValue(object, key) {
  const property = Object.getOwnPropertyDescriptor(object, key);
  return property !== undefined && property.get !== undefined ? Symbol("getter") : object[key];
}

function listed(items, length, show) {
  const texts = [];
  for (const item of items) {
    if (texts.length === MAX_ENTRIES) {
      texts.push(`… ${length - MAX_ENTRIES} more`);
      break;
    }
    texts.push(show(item));
  }
  return texts.join(",");
}
