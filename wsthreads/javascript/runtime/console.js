// `console`: writes to Python's logging, under the script's name.

const MAX_LINE = 100000;  // characters of all values together; each value has at most MAX_TEXT

const console = {};
for (const [method, level] of Object.entries({ debug: 10, log: 20, info: 20, warn: 30, error: 40 })) {
  console[method] = (...values) => {
    python("console", level, inJson(formatted(values)), callStack());
  };
}
publish("console", console);

// For the place of the call.
function callStack() {
  return stackOf(new ERRORS.Error(""));
}

// Returns parts (see inspect.js). The first is the line: texts as they are, other values as `inspect` shows them; in a
// first text, %s %d %i %f %j %o %O and %% are replaced. Then follow the stacks of the errors among the values.
function formatted(values) {
  const line = { __proto__: null, budget: newBudget(MAX_LINE), errors: arrayOf(), first: null };
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
          text += apply(sliceOfText, form, [rest, at]) + (mark === "%" ? "%" : filledIn(mark, values[used++], line));
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
    text += (used === 0 ? "" : " ") + shown(values[used], line);
  }
  return withStacks(text, line);
}

function withStacks(text, { first, errors, budget }) {
  const parts = arrayOf(text, "");
  if (first !== null) {
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
    case "s": case "d": case "i": case "f": case "j": case "o": case "O": return true;
    default: return false;
  }
}

// A value in the line. The stack of the first error follows directly below the line.
function shown(value, line) {
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
    text = inspected(value, arrayOf(), budget, line.errors);
  }
  line.budget.left -= text.length;
  return text;
}

function filledIn(mark, value, line) {
  switch (mark) {
    case "d":
    case "f": return attempt(() => `${toNumber(value)}`, "NaN");
    case "i": return attempt(() => `${trunc(toNumber(value))}`, "NaN");
    case "s": return shown(value, line);
    default: return inspected(value, arrayOf(), newBudget(MAX_TEXT), line.errors);
  }
}
