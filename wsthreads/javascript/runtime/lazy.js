// Parts of the runtime that are loaded when a script first uses them, from the folder `lazy`. What a script does not use
// costs neither time nor memory.
//
// A part is the body of a function of `tools`, and returns an object. It may be loaded long after the script has changed
// the standard library, so it takes the saved functions from `tools` and follows the rules of boot.js. It must never give
// `tools` to the script.

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
    sliceOfText, toText, newMap, arrayOf, append, now, ERRORS, lengthOfView, bytesOfBuffer, bytesOfSharedBuffer,
    // from inspect
    mapEntries, nextOfMap, sizeOfMap, setValues, nextOfSet, sizeOfSet, textOfSymbol, kindOfView, attempt, newBudget, spent,
    cut, includes, headOf, looksLikeError, LARGEST, MAX_TEXT,
    // from console
    textOfFunction, formatted, write, writeParts, callStack, indentation,
    // from objects
    Room, part,
    // only for parts
    ...SAVED,
  };
}

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
