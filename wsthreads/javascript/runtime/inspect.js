// Values and errors as text for logs. Nothing here throws, even if a getter or proxy throws, and no text is longer than
// MAX_TEXT.
//
// An error's message may be a client's text, with lines that look like a stack. So text and stacks travel to Python
// separately: `parts` is an array of text, stack, text, stack, and so on. A stack was made by the engine, or is "".

const MAX_DEPTH = 6;
const MAX_ENTRIES = 100;
const MAX_TEXT = 20000;
const MAX_STACK = 8000;
const MAX_PARTS = 2 * 20;
const LARGEST = 2n ** 4096n;  // the time to write a number grows with the square of its length

const mapEntries = asFunction(Map.prototype.entries);
const nextOfMap = asFunction(getPrototypeOf(new Map().entries()).next);
const sizeOfMap = asGetter(Map.prototype, "size");
const setValues = asFunction(Set.prototype.values);
const nextOfSet = asFunction(getPrototypeOf(new Set().values()).next);
const sizeOfSet = asGetter(Set.prototype, "size");
const kindOfView = asGetter(TYPED_ARRAY, Symbol.toStringTag);
const lengthOfView = asGetter(TYPED_ARRAY, "length");
const textOfObject = asFunction(Object.prototype.toString);
const textOfSymbol = asFunction(Symbol.prototype.toString);

// An error with its stack, its causes and the errors in it; any other value as `inspect` shows it. Returns parts, as
// JSON.
function describe(error) {
  try {
    if (error === null) {
      return '["null was thrown, which the engine does when it is out of memory",""]';
    }
    if (!looksLikeError(error)) {
      return wire(`${inspect(error)} was thrown, which is not an Error`);
    }
    const parts = arrayOf();
    appendError(parts, "", error, newBudget(MAX_TEXT), arrayOf());
    return inJson(parts);
  } catch {  // there may be no memory left, so this makes no new text
    return isOutOfMemory(error) ? '["InternalError: out of memory",""]' : '["something was thrown that cannot be read",""]';
  }
}

function isOutOfMemory(error) {
  try {
    return isError(error) && error.message === "out of memory" && error.name === "InternalError";
  } catch {
    return false;
  }
}

// A text as parts, as JSON.
function wire(text) {
  return `[${quote(text)},""]`;
}

function inJson(parts) {
  let text = "";
  for (let index = 0; index < parts.length; index++) {
    text += `${index === 0 ? "" : ","}${quote(parts[index])}`;
  }
  return `[${text}]`;
}

// Whether the value is an Error, or an object that inherits from one, as in code from before there were classes.
function looksLikeError(value) {
  if (typeof value !== "object" || value === null) {
    return false;
  }
  return isError(value) || attempt(() => {  // a Proxy may throw here
    let object = value;
    for (let depth = 0; object !== null && depth < MAX_ENTRIES; depth++) {
      object = getPrototypeOf(object);
      if (object === ERROR_PROTOTYPE) {
        return true;
      }
    }
    return false;
  }, false);
}

function headOf(error, budget) {
  return spent(budget, attempt(() => {
    const { name, message } = error;
    return message === "" ? `${name}` : `${name}: ${message}`;
  }, "an Error that cannot be read"));
}

// The stack as the engine made it, without calling a getter of the script.
function stackOf(error) {
  const property = attempt(() => getOwnPropertyDescriptor(error, "stack"), undefined);
  const stack = property !== undefined && hasOwn(property, "value") ? property.value : "";
  return typeof stack === "string" ? cut(stack, MAX_STACK) : "";
}

// `parents` are the errors that have this one as their cause.
function appendError(parts, prefix, error, budget, parents) {
  append(parts, prefix + headOf(error, budget));
  append(parts, stackOf(error));
  appendRelated(parts, error, budget, parents);
}

function appendRelated(parts, error, budget, parents) {
  const within = joined(parents, error);
  const cause = attempt(() => error.cause, undefined);
  if (cause !== undefined) {
    appendOther(parts, "caused by ", cause, budget, within);
  }
  const errors = attempt(() => error.errors, undefined);  // of an AggregateError
  if (isArray(errors)) {
    const length = attempt(() => toNumber(errors.length), 0);
    for (let index = 0; index < length && parts.length < MAX_PARTS; index++) {
      const item = attempt(() => errors[index], undefined);
      appendOther(parts, `error ${index + 1} of ${length}: `, item, budget, within);
    }
  }
}

function appendOther(parts, prefix, value, budget, parents) {
  if (parts.length >= MAX_PARTS) {
    return;
  }
  if (!includes(parents, value) && parents.length <= MAX_DEPTH && looksLikeError(value)) {
    appendError(parts, prefix, value, budget, parents);
  } else {
    append(parts, prefix + inspected(value, parents, budget, null));
    append(parts, "");
  }
}

function attempt(read, otherwise) {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

// A budget for a text: how many characters may still be written.
function newBudget(left) {
  return { __proto__: null, left };
}

function spent(budget, text) {
  const short = cut(text, max(0, budget.left));
  budget.left -= short.length;
  return short;
}

function cut(text, length) {
  return text.length > length ? `${upTo(text, length)}…` : text;
}

function joined(items, item) {
  const copy = arrayOf();
  for (let index = 0; index < items.length; index++) {
    append(copy, items[index]);
  }
  append(copy, item);
  return copy;
}

function includes(items, item) {
  return items.indexOf(item) >= 0;
}

// The value as JSON if possible, else as a readable text: for cycles, BigInt, Map, Set, functions, symbols.
function inspect(value) {
  return inspected(value, arrayOf(), newBudget(MAX_TEXT), null);
}

// Errors inside the value are shown without their stack, and appended to `errors`, if that is not null.
function inspected(value, parents, budget, errors) {
  if (budget.left <= 0) {
    return "…";
  }
  return attempt(() => {
    switch (typeof value) {
      case "string": return spent(budget, quote(cut(value, budget.left)));
      case "bigint": return spent(budget, value > -LARGEST && value < LARGEST ? `${value}n` : "[huge bigint]");
      case "symbol": return spent(budget, textOfSymbol(value));
      case "function": return spent(budget, attempt(() => `[function ${value.name || "anonymous"}]`, "[function]"));
      case "object": return value === null ? "null" : inspectedObject(value, parents, budget, errors);
      default: return spent(budget, `${value}`);
    }
  }, "[unreadable]");
}

function inspectedObject(object, parents, budget, errors) {
  if (includes(parents, object)) {
    return "[circular]";
  }
  if (object === ENV) {
    return quote("env, whose values are secret");
  }
  if (looksLikeError(object)) {
    if (errors !== null) {
      append(errors, object);
    }
    return `[${headOf(object, budget)}]`;
  }
  if (parents.length >= MAX_DEPTH) {
    return isArray(object) ? "[…]" : "{…}";
  }
  const within = joined(parents, object);
  const inner = (value) => inspected(value, within, budget, errors);
  budget.left -= 2;
  if (isArray(object)) {
    return `[${listed(object.length, budget, (index) => inner(object[index]))}]`;
  }
  if (isView(object) && kindOfView(object) !== undefined) {
    return `${kindOfView(object)} [${listed(lengthOfView(object), budget, (index) => inner(object[index]))}]`;
  }
  const kind = textOfObject(object);
  if (kind === "[object Map]") {
    const size = sizeOfMap(object);
    const entries = mapEntries(object);
    return `Map {${listed(size, budget, () => {
      const { value } = nextOfMap(entries);
      return `${inner(value[0])}:${inner(value[1])}`;
    })}}`;
  }
  if (kind === "[object Set]") {
    const size = sizeOfSet(object);
    const values = setValues(object);
    return `Set {${listed(size, budget, () => inner(nextOfSet(values).value))}}`;
  }
  if (kind === "[object ArrayBuffer]") {
    return `ArrayBuffer (${bytesOfBuffer(object)} bytes)`;
  }
  if (kind === "[object RegExp]" || kind === "[object Promise]" || kind === "[object WeakMap]" ||
      kind === "[object WeakSet]") {
    return spent(budget, `${object}`);
  }
  if (object instanceof Room) {  // its fields are private; quoted, so that an object around it stays JSON
    return quote(`Room ${object.getName()}`);
  }
  if (object instanceof Session) {
    return quote(`Session ${object.id}`);
  }
  if (typeof object.toJSON === "function") {
    return inspected(object.toJSON(), within, budget, errors);
  }
  const names = keysOf(object);
  return `{${listed(names.length, budget, (index) => {
    const name = spent(budget, quote(cut(names[index], max(0, budget.left))));
    return `${name}:${innerOf(object, names[index], inner)}`;
  })}}`;
}

// The value of a property, without running a getter of the script.
function innerOf(object, name, inner) {
  const property = getOwnPropertyDescriptor(object, name);
  return property === undefined || hasOwn(property, "value") ? inner(property?.value) : "Symbol(getter)";
}

// As many of the `length` items as the budget allows.
function listed(length, budget, show) {
  let text = "";
  for (let index = 0; index < length; index++) {
    if (index > 0) {
      text += ",";
    }
    if (index === MAX_ENTRIES || budget.left <= 0) {
      return `${text}… ${length - index} more`;
    }
    text += show(index);
    budget.left--;
  }
  return text;
}
