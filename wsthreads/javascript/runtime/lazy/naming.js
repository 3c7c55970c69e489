// How the console names a value: its class, its kind, and primitive values in an object.

const {
  apply, getOwnPropertyDescriptor, getPrototypeOf, sliceOfText, textOfSymbol, textOfFunction, numberIn, stringIn,
  booleanIn, bigintIn, symbolIn, arrayOf, attempt, cut, TO_STRING_TAG, part,
} = tools;
const { quoted } = part("layout");

const MAX_NAME = 1000;
const MAX_STRING = 10000;
const MAX_DEPTH = 100;  // of prototypes

function numberText(value) {
  return value === 0 && 1 / value < 0 ? "-0" : `${value}`;
}

// The name of the class, "" if it has none, null for an object without a prototype.
function classOf(object) {
  let prototype = object;
  for (let depth = 0; prototype !== null && depth < MAX_DEPTH; depth++) {
    const maker = getOwnPropertyDescriptor(prototype, "constructor")?.value;
    if (typeof maker === "function" && (prototype !== object || depth > 0)) {
      const name = nameOf(maker);
      if (name !== "") {
        return name;
      }
    }
    prototype = getPrototypeOf(prototype);
  }
  return getPrototypeOf(object) === null ? null : "Object <[Object: null prototype] {}>";
}

function nameOf(callable) {
  const name = getOwnPropertyDescriptor(callable, "name")?.value;
  return typeof name === "string" ? cut(name, MAX_NAME) : "";
}

// Symbol.toStringTag, unless it is a getter or shown as a property.
function tagOf(object) {
  const own = getOwnPropertyDescriptor(object, TO_STRING_TAG);
  if (own !== undefined && own.enumerable) {
    return "";
  }
  for (let holder = object, depth = 0; holder !== null && depth < MAX_DEPTH; depth++) {
    const property = getOwnPropertyDescriptor(holder, TO_STRING_TAG);
    if (property !== undefined) {
      return typeof property.value === "string" ? cut(property.value, MAX_NAME) : "";
    }
    holder = getPrototypeOf(holder);
  }
  return "";
}

function prefix(name, tag, kind, size = "") {
  if (name === null) {
    return `[${kind}${size}: null prototype] ${tag !== "" && tag !== kind ? `[${tag}] ` : ""}`;
  }
  return `${name}${size} ${tag !== "" && tag !== name ? `[${tag}] ` : ""}`;
}

function boxedText(object, name) {
  const kinds = arrayOf("Number", numberIn, "String", stringIn, "Boolean", booleanIn, "BigInt", bigintIn, "Symbol", symbolIn);
  for (let at = 0; at < kinds.length; at += 2) {
    const value = attempt(() => kinds[at + 1](object), undefined);
    if (value !== undefined) {
      const text = typeof value === "string" ? quoted(cut(value, MAX_STRING)) : typeof value === "symbol" ? textOfSymbol(value) :
        typeof value === "bigint" ? `${value}n` : numberText(value);
      return `[${kinds[at]}${name === kinds[at] ? "" : name === null ? " (null prototype)" : ` (${name})`}: ${text}]`;
    }
  }
  return "";
}

function functionText(callable, name, tag) {
  const own = nameOf(callable);
  const after = tag !== "" && tag !== name ? ` [${tag}]` : "";
  if (apply(sliceOfText, textOfFunction(callable), [0, 5]) === "class") {
    const parent = getPrototypeOf(callable);
    const from = typeof parent === "function" ? nameOf(parent) : "";
    return `[class ${own === "" ? "(anonymous)" : own}${after}${parent === null ? " extends [null prototype]" : from === "" ? "" : ` extends ${from}`}]`;
  }
  const kind = name === "AsyncFunction" || name === "GeneratorFunction" || name === "AsyncGeneratorFunction" ? name : "Function";
  return `[${kind}${name === null ? " (null prototype)" : ""}${own === "" ? " (anonymous)" : `: ${own}`}]` +
    `${name !== kind && name !== null ? ` ${name}` : ""}${tag !== "" && tag !== name ? after : ""}`;
}

return { __proto__: null, numberText, classOf, tagOf, prefix, boxedText, functionText };
