// The rarer methods of `console`: tables, times, counts, groups. They follow the Console Standard
// (https://console.spec.whatwg.org), with the texts of Node. The arguments are in arrays of the script, so they are
// read by index only.

const {
  getOwnPropertyDescriptor, keysOf, isArray, isFinite, max, floor, toFixed, toText, padEnd, padStart, mapEntries,
  nextOfMap, sizeOfMap, setValues, nextOfSet, sizeOfSet, lengthOfView, now, arrayOf, append, attempt, cut, newBudget, newMap,
  callStack, formatted, prefixed, write, writeParts, indentation, part, ENV, ERRORS, MAX_TEXT,
} = tools;
const { show } = part("inspection");
const { list } = part("layout");

const INFO = 20;
const WARNING = 30;
const ERROR = 40;
const MAX_ROWS = 1000;
const MAX_COLUMNS = 100;
const MAX_NAME = 200;
const MAX_DRAWN = 100000;  // characters of the rows
const MAX_LABELS = 1000;  // a script may take its labels from clients
const MAX_GROUPS = 40;

const times = newMap();
const counts = newMap();

function assert(isTrue, ...values) {
  if (!isTrue) {
    const parts = values.length === 0 ? arrayOf("", "") : formatted(values);
    writeParts(ERROR, prefixed(`Assertion failed${values.length === 0 ? "" : typeof values[0] === "string" ? ": " : " "}`, parts));
  }
}

function trace(...values) {
  const parts = formatted(values);
  prefixed(parts[0] === "" ? "Trace" : "Trace: ", parts);
  if (parts[1] === "") {
    parts[1] = callStack();
  } else {  // the stack of an error
    append(parts, "the trace itself");
    append(parts, callStack());
  }
  writeParts(INFO, parts);
}

function dir(value, options) {
  const depth = attempt(() => options.depth, undefined);
  const errors = arrayOf();
  const text = show(value, newBudget(MAX_TEXT), errors, depth === null ? 100 : isFinite(depth) ? depth : depth === undefined ? 2 : 100);
  say(INFO, text);
}

// One line of text. Percent signs in it have no meaning.
function say(level, text) {
  writeParts(level, arrayOf(text, ""));
}

// Times.

function labelOf(label) {
  return label === undefined ? "default" : `${toText(label)}`;
}

function warn(text) {
  say(WARNING, text);
}

function time(label) {
  const name = labelOf(label);
  if (times.has(name)) {
    warn(`Label '${name}' already exists for console.time()`);
  } else if (sizeOfMap(times) >= MAX_LABELS) {
    warn(`console.time() ignores '${name}': ${MAX_LABELS} labels are in use`);
  } else {
    times.set(name, now());
  }
}

function timeLog(label, ...values) {
  sayTime("timeLog", labelOf(label), values);
}

function timeEnd(label) {
  const name = labelOf(label);
  sayTime("timeEnd", name, arrayOf());
  times.delete(name);
}

function sayTime(method, name, values) {
  const began = times.get(name);
  if (began === undefined) {
    warn(`No such label '${name}' for console.${method}()`);
    return;
  }
  const all = arrayOf("%s: %s", name, duration(now() - began));
  for (let at = 0; at < values.length; at++) {
    append(all, values[at]);
  }
  write(INFO, all);
}

function duration(ms) {
  if (ms < 1000) {
    return `${+toFixed(ms, 3)}ms`;
  }
  if (ms < 60000) {
    return `${toFixed(ms / 1000, 3)}s`;
  }
  const minutes = floor(ms / 60000);
  const seconds = padStart(toFixed((ms - minutes * 60000) / 1000, 3), 6, "0");
  if (minutes < 60) {
    return `${minutes}:${seconds} (m:ss.mmm)`;
  }
  return `${floor(minutes / 60)}:${padStart(`${minutes % 60}`, 2, "0")}:${seconds} (h:mm:ss.mmm)`;
}

// Counts.

function count(label) {
  const name = labelOf(label);
  const next = (counts.get(name) ?? 0) + 1;
  if (next === 1 && sizeOfMap(counts) >= MAX_LABELS) {
    warn(`console.count() ignores '${name}': ${MAX_LABELS} labels are in use`);
    return;
  }
  counts.set(name, next);
  say(INFO, `${name}: ${next}`);
}

function countReset(label) {
  const name = labelOf(label);
  if (!counts.delete(name)) {
    warn(`Count for '${name}' does not exist`);
  }
}

// Groups: each line that follows is indented.

function group(...values) {
  if (values.length > 0) {
    write(INFO, values);
  }
  if (indentation.text.length < 2 * MAX_GROUPS) {
    indentation.text += "  ";
  }
}

function groupEnd() {
  indentation.text = padEnd("", max(0, indentation.text.length - 2));
}

function clear() {
  // A log has no screen.
}

// Tables.

function table(data, columns) {
  if (data === null || data === ENV || typeof data !== "object") {
    write(INFO, arrayOf(data));
    return;
  }
  if (columns !== undefined && !isArray(columns)) {
    throw new ERRORS.TypeError("console.table takes an array of the columns' names as its second argument");
  }
  const budget = newBudget(MAX_TEXT);
  const head = arrayOf("(index)");
  const rows = arrayOf();  // texts by column: "" where a row has none
  const size = attempt(() => sizeOfMap(data), -1);
  const count = attempt(() => sizeOfSet(data), -1);
  if (size >= 0 || count >= 0) {
    head[0] = "(iteration index)";
  }
  if (size >= 0) {
    append(head, "Key");
    append(head, "Values");
    const entries = mapEntries(data);
    for (let at = 0; at < size && hasRoom(rows, budget); at++) {
      const { value } = nextOfMap(entries);
      append(rows, arrayOf(`${at}`, cell(value[0], budget), cell(value[1], budget)));
    }
  } else if (count >= 0) {
    append(head, "Values");
    const values = setValues(data);
    for (let at = 0; at < count && hasRoom(rows, budget); at++) {
      append(rows, arrayOf(`${at}`, cell(nextOfSet(values).value, budget)));
    }
  } else {
    fill(data, columns, head, rows, budget);
  }
  say(INFO, `\n${drawn(head, rows)}`);  // begins with a line break, so the rows are aligned
}


function hasRoom(rows, budget) {
  return rows.length < MAX_ROWS && budget.left > 0;
}

// One row for each property. Its columns are the properties of its value, or "Values" for a value without any.
function fill(data, columns, head, rows, budget) {
  const names = namesOf(data);
  const places = newMap();  // of the columns, by name
  const singles = arrayOf();
  for (let at = 0; columns !== undefined && at < columns.length && at < MAX_COLUMNS; at++) {
    places.set(toText(columns[at]), head.length);
    append(head, cut(toText(columns[at]), MAX_NAME));
  }
  for (let at = 0; at < names.length && hasRoom(rows, budget); at++) {
    const row = arrayOf(cut(names[at], MAX_NAME));
    append(rows, row);
    append(singles, "");
    const value = valueOf(data, names[at]);
    if (value === null || value === ENV || (typeof value !== "object" && typeof value !== "function")) {
      if (columns === undefined) {
        singles[at] = cell(value, budget);
      }
      continue;
    }
    const keys = columns ?? keysOf(value);
    for (let index = 0; index < keys.length && index < MAX_COLUMNS && budget.left > 0; index++) {
      const key = toText(keys[index]);
      const property = getOwnPropertyDescriptor(value, key);
      if (property !== undefined) {
        if (!places.has(key)) {
          if (head.length > MAX_COLUMNS) {
            continue;
          }
          places.set(key, head.length);
          append(head, cut(key, MAX_NAME));
        }
        row[places.get(key)] = cell(property.value, budget);
      }
    }
  }
  let hasSingles = false;
  for (let at = 0; at < singles.length; at++) {
    hasSingles ||= singles[at] !== "";
  }
  if (hasSingles) {
    for (let at = 0; at < rows.length; at++) {
      rows[at][head.length] = singles[at];
    }
    append(head, "Values");
  }
}

// The names of the rows. A million elements would take most of a second, and few of them are shown.
function namesOf(data) {
  if (attempt(() => lengthOfView(data), 0) <= MAX_ROWS) {
    return keysOf(data);
  }
  const names = arrayOf();
  for (let at = 0; at < MAX_ROWS; at++) {
    append(names, `${at}`);
  }
  return names;
}

function valueOf(object, name) {
  return getOwnPropertyDescriptor(object, name)?.value;
}

// The text of a cell: the value in one line, without the contents of inner objects.
function cell(value, budget) {
  const isWide = value !== null && typeof value === "object" && !isArray(value) && attempt(() => keysOf(value).length > 2, true);
  return show(value, budget, null, isWide ? -1 : 0, Infinity, 3);
}

function drawn(head, rows) {
  const widths = arrayOf();
  for (let column = 0; column < head.length; column++) {
    let width = head[column].length;
    for (let at = 0; at < rows.length; at++) {
      width = max(width, (rows[at][column] ?? "").length);
    }
    append(widths, width);
  }
  const bars = arrayOf();
  for (let column = 0; column < widths.length; column++) {
    append(bars, padEnd("", widths[column] + 2, "─"));
  }
  const row = (texts) => {
    const cells = arrayOf();
    for (let column = 0; column < widths.length; column++) {
      append(cells, padEnd(texts[column] ?? "", widths[column]));
    }
    return `│ ${list(cells, " │ ")} │\n`;
  };
  let text = `┌${list(bars, "┬")}┐\n${row(head)}├${list(bars, "┼")}┤\n`;
  let at = 0;  // each row is as wide as the widest
  for (; at < rows.length && text.length < MAX_DRAWN; at++) {
    text += row(rows[at]);
  }
  const rest = rows.length - at;
  return `${text}└${list(bars, "┴")}┘${rest === 0 ? "" : `\n… ${rest} more`}`;
}

return {
  __proto__: null, assert, trace, dir, dirxml: (...values) => write(INFO, values), time, timeLog, timeEnd, count, countReset,
  group, groupCollapsed: group, groupEnd, clear, table,
};
