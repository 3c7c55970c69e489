// `console`: writes to Python's logging, under the script's name.

const textOfFunction = asFunction(Function.prototype.toString);
const toFloat = parseFloat;
const toWhole = parseInt;

const MAX_LINE = 100000;  // characters of all values together; each value has at most MAX_TEXT

// The indentation of each line: `console.group` changes it.
const indentation = { __proto__: null, text: "" };

const console = {};
for (const [method, level] of Object.entries({ debug: 10, log: 20, info: 20, warn: 30, error: 40 })) {
  console[method] = (...values) => write(level, values);
}
for (const method of ["assert", "clear", "count", "countReset", "dir", "dirxml", "group", "groupCollapsed", "groupEnd",
  "table", "time", "timeEnd", "timeLog", "trace"]) {
  console[method] = (...values) => apply(part("console")[method], undefined, values);
}
publish("console", console);

function write(level, values) {
  writeParts(level, formatted(values));
}

function writeParts(level, parts) {
  python("console", level, inJson(parts), callStack(), indentation.text, parts.before);
}

// Puts a text before the line of parts.
function prefixed(prefix, parts) {
  parts[0] = prefix + parts[0];
  if (parts.before !== undefined) {
    parts.before = prefix + parts.before;
  }
  return parts;
}

// The stack of a call of the console, for the place of this call.
function callStack() {
  return stackOf(new ERRORS.Error(""));
}

// Returns parts (see inspect.js). The first is the line: texts unchanged, other values as Node shows them (see
// lazy/inspection.js); in a first text, %s %d %i %f %j %o %O %c and %% are replaced. The stacks of the errors among the
// values follow. `before` is the text before the first error: Python looks only at that error's text.
function formatted(values) {
  const line = { __proto__: null, budget: newBudget(MAX_LINE), errors: arrayOf(), first: null, before: undefined };
  let used = 0;
  let text = "";
  if (typeof values[0] === "string") {
    used = 1;
    text = cut(values[0], MAX_TEXT);
    if (values.length > 1) {
      let rest = 0;
      const form = text;
      text = "";
      for (let at = 0; at + 1 < form.length; at++) {
        const mark = form[at] === "%" ? form[at + 1] : "";
        if (mark === "%" || (used < values.length && isMark(mark))) {
          text += apply(sliceOfText, form, [rest, at]);
          text += noted(line, text, mark === "%" ? "%" : filledIn(mark, values[used++], line));
          at++;
          rest = at + 1;
        }
      }
      text += apply(sliceOfText, form, [rest]);
    }
    line.budget.left -= text.length;
  }
  for (; used < values.length; used++) {
    if (line.budget.left <= 0) {
      text += ` … ${values.length - used} more`;
      break;
    }
    text += used === 0 ? "" : " ";
    text += noted(line, text, shown(values[used], line));
  }
  return withStacks(text, line);
}

// Returns `piece`, which follows `text`. If the first error is in `piece`, `text` is the text before it.
function noted(line, text, piece) {
  if (line.first !== null && line.before === undefined) {
    line.before = text;
  }
  return piece;
}

function withStacks(text, { first, before, errors, budget }) {
  const parts = arrayOf(text, "");
  if (first !== null) {
    parts.before = before;
    parts[1] = stackOf(first);
    appendRelated(parts, first, budget, arrayOf());
  }
  for (let index = 0; index < errors.length && parts.length < MAX_PARTS; index++) {
    appendError(parts, "", errors[index], newBudget(MAX_TEXT), arrayOf());
  }
  return parts;
}

function isMark(mark) {
  switch (mark) {
    case "s": case "d": case "i": case "f": case "j": case "o": case "O": case "c": return true;
    default: return false;
  }
}

// A value in the line. The stack of the first error follows directly below the line.
function shown(value, line, depth = 2) {
  const budget = newBudget(MAX_TEXT);
  let text;
  if (typeof value === "string") {
    text = spent(budget, value);
  } else if (looksLikeError(value)) {
    text = headOf(value, budget);
    if (line.first === null) {
      line.first = value;
    } else {
      append(line.errors, value);
    }
  } else {
    text = isSimple(value) ? `${value}` : part("inspection").show(value, budget, line.errors, depth);
  }
  line.budget.left -= text.length;
  return text;
}

// Whether a value can be shown without another part of the runtime.
function isSimple(value) {
  return value === undefined || value === null || typeof value === "boolean" || (typeof value === "number" && value !== 0);
}

function filledIn(mark, value, line) {
  switch (mark) {
    case "c": return "";  // CSS for browsers
    case "d": return asNumber(value, toNumber);
    case "f": return asNumber(value, toFloat);
    case "i": return asNumber(value, toWhole);
    case "s": return isText(value) ? cut(attempt(() => `${value}`, "[unreadable]"), MAX_TEXT) : shown(value, line, 0);
    case "j": return value === ENV ? inspect(value) : cut(attempt(() => `${quote(value)}`, "[Circular]"), MAX_TEXT);
    default: return part("inspection").show(value, newBudget(MAX_TEXT), line.errors, mark === "o" ? 4 : 2);
  }
}

function asNumber(value, convert) {
  return typeof value === "bigint" ? inspect(value) : attempt(() => {
    const number = convert(value);
    return number === 0 && 1 / number < 0 ? "-0" : `${number}`;
  }, "NaN");
}

// Whether a value is a function, or an object with a toString from the script.
function isText(value) {
  if (typeof value !== "object" || value === null || looksLikeError(value)) {
    return typeof value === "function";
  }
  return attempt(() => {
    let holder = value;
    for (let depth = 0; holder !== null && depth < MAX_ENTRIES; depth++) {
      const property = getOwnPropertyDescriptor(holder, "toString");
      if (property !== undefined) {
        return typeof property.value === "function" && !isBuiltIn(property.value);
      }
      holder = getPrototypeOf(holder);
    }
    return false;
  }, false);
}

function isBuiltIn(callable) {
  const text = textOfFunction(callable);
  return apply(sliceOfText, text, [text.length - 15]) === "[native code]\n}";
}
