// Values as text for the console, like `util.inspect` of Node: same braces, names, quotes, depth and line breaks.
// Loaded when a script first writes a value that is not text.
//
// As in inspect.js, nothing here throws, no getter of the script runs, and the text is bounded: by `budget`, and by 100
// entries of each object. One difference from Node, for logs: an error inside a value is shown as its message, and its
// stack follows below the line.

const {
  apply, getOwnPropertyDescriptor, getPrototypeOf, hasOwn, keysOf, isArray, isView, isEnumerable, symbolsOf, max, min,
  codeAt, sliceOfText, kindOfView, lengthOfView, bytesOfBuffer, bytesOfSharedBuffer, mapEntries, nextOfMap, sizeOfMap,
  setValues, nextOfSet, sizeOfSet, textOfSymbol, timeOf, isoOf, sourceOfRegExp, flagsOfRegExp, isInWeakMap,
  isInWeakSet, stringIn, arrayOf, append, attempt, spent, cut, includes, headOf, looksLikeError, LARGEST, Room, ENV, shownAs,
  objectPrototype, part,
} = tools;
const { quoted, spaces, joined } = part("layout");
const { numberText, classOf, tagOf, prefix, boxedText, functionText } = part("naming");

const MAX_ENTRIES = 100;
const MAX_STRING = 10000;
const MAX_NAME = 1000;
const MAX_KEYED = 1000;  // of longer arrays, only the elements are shown

// Errors inside the value are appended to `errors`, if that is not null. `depth` is the number of levels below `value`.
// `width` is the width of a line, and `most` the number of entries of an object.
function show(value, budget, errors, depth = 2, width = 80, most = MAX_ENTRIES) {
  const to = {
    __proto__: null, budget, errors, depth, width, most, parents: arrayOf(), references: arrayOf(), indent: 0, deepest: 0,
  };
  return attempt(() => formatted(value, to, 0), "[unreadable]");
}

function formatted(value, to, level) {
  const { budget } = to;
  if (budget.left <= 0) {
    return "…";
  }
  switch (typeof value) {
    case "string": return formattedText(value, to, level);
    case "number": return spent(budget, numberText(value));
    case "bigint": return spent(budget, value > -LARGEST && value < LARGEST ? `${value}n` : "[huge bigint]");
    case "symbol": return spent(budget, textOfSymbol(value));
    case "object": if (value !== null) break; return spent(budget, "null");
    case "function": break;
    default: return spent(budget, `${value}`);
  }
  if (includes(to.parents, value)) {
    let at = to.references.indexOf(value);
    if (at < 0) {
      at = to.references.length;
      append(to.references, value);
    }
    return spent(budget, `[Circular *${at + 1}]`);
  }
  return attempt(() => formattedObject(value, to, level), "[unreadable]");
}

function formattedText(text, to, level) {
  const most = min(MAX_STRING, to.budget.left);
  const rest = text.length - most;
  const short = rest > 0 ? apply(sliceOfText, text, [0, most]) : text;
  const after = rest > 0 ? `... ${rest} more character${rest > 1 ? "s" : ""}` : "";
  if (level === 0 || short.length <= 16 || short.length <= to.width - to.indent - 4) {
    return spent(to.budget, quoted(short)) + after;
  }
  let lines = "";
  let start = 0;
  for (let at = 0; at < short.length; at++) {
    if (short[at] === "\n" && at + 1 < short.length) {
      lines += `${quoted(apply(sliceOfText, short, [start, at + 1]))} +\n${spaces(to.indent + 2)}`;
      start = at + 1;
    }
  }
  return spent(to.budget, lines + quoted(apply(sliceOfText, short, [start]))) + after;
}

function sizeFrom(read, object) {
  return attempt(() => read(object), -1);
}

// How each kind of value is shown: the text before the braces, the braces, and the text between them.
function formattedObject(object, to, level) {
  const name = classOf(object);
  const tag = tagOf(object);
  const shape = { __proto__: null, base: "", open: "{", close: "}", inner: null, isList: false, keys: null };
  const isPlain = getPrototypeOf(object) === objectPrototype && tag === "";
  if (isArray(object)) {
    shape.open = `${name === "Array" && tag === "" ? "" : prefix(name, tag, "Array", `(${object.length})`)}[`;
    shape.close = "]";
    shape.isList = true;
    shape.inner = object.length === 0 ? null : elements;
    shape.keys = object.length > MAX_KEYED ? arrayOf() : keysIn(object, true);
  } else if (isView(object) && kindOfView(object) !== undefined) {
    shape.open = `${prefix(name, tag, kindOfView(object), `(${lengthOfView(object)})`)}[`;
    shape.close = "]";
    shape.isList = true;
    shape.inner = lengthOfView(object) === 0 ? null : elementsOfView;
    shape.keys = lengthOfView(object) > MAX_KEYED ? arrayOf() : keysIn(object, true);
  } else if (typeof object === "function") {
    shape.base = functionText(object, name, tag);
  } else if (!isPlain) {
    shapeOther(shape, object, name, tag, to);
  }
  const keys = shape.keys ?? keysIn(object, false);
  if (keys.length === 0 && shape.inner === null) {
    return spent(to.budget, shape.base !== "" ? shape.base : `${shape.open}${shape.close}`);
  }
  if (level > to.depth) {
    const after = tag !== "" && tag !== name ? ` [${tag}]` : "";
    return spent(to.budget, shape.base !== "" ? shape.base : `[${name ?? "Object: null prototype"}${after}]`);
  }
  return withInner(shape, object, keys, to, level + 1);
}

function shapeOther(shape, object, name, tag, to) {
  const opening = (kind, size) => {
    shape.open = `${prefix(name, tag, kind, size)}{`;
  };
  if (object === ENV) {
    shape.base = "[env, whose values are secret]";
    shape.keys = arrayOf();
    return;
  }
  if (looksLikeError(object)) {
    shape.base = `[${headOf(object, to.budget)}]`;
    shape.keys = errorKeys(object);
    if (to.errors !== null) {
      append(to.errors, object);
    }
    return;
  }
  if (object instanceof Room) {  // its fields are private
    shape.inner = () => arrayOf(`name: ${quoted(object.getName())}`);
    opening("Room");
    return;
  }
  const shown = shownAs.get(getPrototypeOf(object));
  if (shown !== undefined) {
    shape.inner = () => ofTheWeb(object, shown, to);
    return opening("Object");
  }
  const size = sizeFrom(sizeOfMap, object);
  if (size >= 0) {
    shape.inner = size === 0 ? null : entries;
    return opening("Map", `(${size})`);
  }
  const count = sizeFrom(sizeOfSet, object);
  if (count >= 0) {
    shape.inner = count === 0 ? null : members;
    return opening("Set", `(${count})`);
  }
  const time = attempt(() => timeOf(object), undefined);
  if (time !== undefined) {
    shape.base = named(name, "Date", time === time ? isoOf(object) : "Invalid Date");
    return;
  }
  const source = attempt(() => sourceOfRegExp(object), undefined);
  if (source !== undefined) {
    shape.base = named(name, "RegExp", `/${cut(source, MAX_STRING)}/${attempt(() => flagsOfRegExp(object), "")}`);
    return;
  }
  const bytes = max(sizeFrom(bytesOfBuffer, object), sizeFrom(bytesOfSharedBuffer, object));
  if (bytes >= 0) {
    shape.inner = () => arrayOf(`byteLength: ${bytes}`);
    return opening("ArrayBuffer");
  }
  if (isInWeak(isInWeakMap, object) || isInWeak(isInWeakSet, object)) {
    shape.inner = () => arrayOf("<items unknown>");
    return opening("WeakMap");
  }
  const boxed = boxedText(object, name);
  if (boxed !== "") {
    shape.base = boxed;
    shape.keys = typeof attempt(() => stringIn(object), 0) === "string" ? keysIn(object, true) : null;
    return;
  }
  if (tag === "Module" && name === null) {
    shape.open = "[Module: null prototype] {";
  } else if (name !== "Object" || tag !== "") {
    opening("Object");
  }
}

// The content of an object of one of the web's classes: see showAs.
function ofTheWeb(object, shown, to) {
  const output = arrayOf();
  const add = (key, value) => {
    if (output.length < to.most && to.budget.left > 0) {
      append(output, `${quoted(key)} => ${formatted(value, to, to.deepest)}`);
    }
  };
  attempt(() => {
    if (typeof shown === "function") {
      shown(object, add);
      return;
    }
    for (let at = 0; at < shown.length; at++) {
      to.indent += 2;
      append(output, `${shown[at]}: ${formatted(object[shown[at]], to, to.deepest)}`);
      to.indent -= 2;
    }
  }, undefined);
  return output;
}

function isInWeak(has, object) {
  return attempt(() => {
    has(object, objectPrototype);
    return true;
  }, false);
}

function named(name, kind, text) {
  return name === kind ? text : `${prefix(name, "", kind)}${text}`;
}

// Names and symbols of the properties to show. Without the elements of an array.
function keysIn(object, withoutElements) {
  const keys = arrayOf();
  const names = keysOf(object);
  for (let at = 0; at < names.length; at++) {
    if (!withoutElements || !isIndex(names[at])) {
      append(keys, names[at]);
    }
  }
  const symbols = symbolsOf(object);
  for (let at = 0; at < symbols.length; at++) {
    if (isEnumerable(object, symbols[at])) {
      append(keys, symbols[at]);
    }
  }
  return keys;
}

function errorKeys(error) {
  const all = keysIn(error, false);
  const keys = arrayOf();
  for (let at = 0; at < all.length; at++) {
    const key = all[at];
    if (key !== "name" && key !== "message" && key !== "stack" && key !== "cause" && key !== "errors") {
      append(keys, key);
    }
  }
  return keys;
}

function isIndex(name) {
  if (name.length > 10) {
    return false;
  }
  for (let at = 0; at < name.length; at++) {
    const code = codeAt(name, at);
    if (code < 48 || code > 57) {
      return false;
    }
  }
  return name !== "";
}

function isIdentifier(name) {
  if (name.length > MAX_NAME) {
    return false;
  }
  for (let at = 0; at < name.length; at++) {
    const code = codeAt(name, at) | 32;
    if (!(code >= 97 && code <= 122) && name[at] !== "_" && !(at > 0 && isIndex(name[at]))) {
      return false;
    }
  }
  return name !== "";
}

function withInner(shape, object, keys, to, level) {
  append(to.parents, object);
  to.deepest = level;
  const output = shape.inner === null ? arrayOf() : shape.inner(object, to, level);
  for (let at = 0; at < keys.length; at++) {
    if (output.length >= to.most || to.budget.left <= 0) {
      append(output, more(keys.length - at));
      break;
    }
    append(output, property(object, keys[at], to, level));
  }
  to.parents.splice(to.parents.length - 1, 1);
  const reference = to.references.indexOf(object);
  const base = reference < 0 ? shape.base : `<ref *${reference + 1}>${shape.base === "" ? "" : ` ${shape.base}`}`;
  return joined(base, shape, output, object, to, level);
}

function more(count) {
  return `... ${count} more item${count > 1 ? "s" : ""}`;
}

function property(object, key, to, level) {
  const name = typeof key === "symbol" ? `[${textOfSymbol(key)}]` : key === "__proto__" ? "['__proto__']" :
    isIdentifier(key) ? key : quoted(cut(key, MAX_NAME));
  return `${spent(to.budget, name)}: ${valueAt(object, key, to, level)}`;
}

// The value of a property, without running a getter of the script.
function valueAt(object, key, to, level) {
  const found = getOwnPropertyDescriptor(object, key);
  if (found === undefined || hasOwn(found, "value")) {
    to.indent += 2;
    const text = formatted(found === undefined ? undefined : found.value, to, level);
    to.indent -= 2;
    return text;
  }
  return found.get === undefined ? "[Setter]" : found.set === undefined ? "[Getter]" : "[Getter/Setter]";
}

function elements(array, to, level) {
  const output = arrayOf();
  const { length } = array;
  for (let index = 0; index < length; index++) {
    if (output.length >= to.most || to.budget.left <= 0) {
      append(output, more(length - index));
      return output;
    }
    if (!hasOwn(array, index)) {
      return sparse(array, index, output, to, level);
    }
    append(output, valueAt(array, index, to, level));
  }
  return output;
}

// The remaining elements of an array with holes.
function sparse(array, from, output, to, level) {
  const names = keysOf(array);
  let index = from;
  for (let at = from; at < names.length && isIndex(names[at]); at++) {
    const next = +names[at];
    if (next > index) {
      append(output, `<${next - index} empty item${next - index > 1 ? "s" : ""}>`);
      index = next;
    }
    if (output.length >= to.most || to.budget.left <= 0) {
      append(output, more(array.length - index));
      return output;
    }
    append(output, valueAt(array, names[at], to, level));
    index++;
  }
  const rest = array.length - index;
  if (rest > 0) {
    append(output, output.length >= to.most ? more(rest) : `<${rest} empty item${rest > 1 ? "s" : ""}>`);
  }
  return output;
}

function elementsOfView(view, to) {
  const output = arrayOf();
  const length = lengthOfView(view);
  for (let index = 0; index < length; index++) {
    if (index >= to.most || to.budget.left <= 0) {
      append(output, more(length - index));
      break;
    }
    append(output, formatted(view[index], to, 1));
  }
  return output;
}

function entries(map, to, level) {
  const all = mapEntries(map);
  return each(sizeOfMap(map), to, () => {
    const { value } = nextOfMap(all);
    return `${formatted(value[0], to, level)} => ${formatted(value[1], to, level)}`;
  });
}

function members(set, to, level) {
  const all = setValues(set);
  return each(sizeOfSet(set), to, () => formatted(nextOfSet(all).value, to, level));
}

function each(size, to, next) {
  const output = arrayOf();
  to.indent += 2;
  for (let count = 0; count < size; count++) {
    if (count >= to.most || to.budget.left <= 0) {
      append(output, more(size - count));
      break;
    }
    append(output, next());
  }
  to.indent -= 2;
  return output;
}

return { __proto__: null, show };
