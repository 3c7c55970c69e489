// Lays out texts for the console, like Node: quotes, and entries in one line, in columns, or one entry a line.

const {
  getOwnPropertyDescriptor, isArray, max, min, sqrt, round, floor, codeAt, padStart, padEnd, hexOf, inUpperCase,
  arrayOf, append,
} = tools;

const COMPACT = 3;  // levels of objects in one line

const ESCAPES = { __proto__: null, 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 92: "\\\\" };

// The text in single quotes, or in other quotes if the text contains single quotes.
function quoted(text) {
  let hasSingle = false, hasDouble = false, hasBack = false, isPlain = true;
  for (let at = 0; at < text.length; at++) {
    const code = codeAt(text, at);
    hasSingle ||= code === 39;
    hasDouble ||= code === 34;
    hasBack ||= code === 96 || (code === 36 && text[at + 1] === "{");
    isPlain &&= code >= 32 && code !== 39 && code !== 92 && !(code >= 127 && code <= 159) && (code & 0xF800) !== 0xD800;
  }
  const mark = !hasSingle ? "'" : !hasDouble ? '"' : !hasBack ? "`" : "'";
  return mark + (isPlain ? text : escaped(text, mark)) + mark;
}

function escaped(text, mark) {
  let result = "";
  for (let at = 0; at < text.length; at++) {
    const code = codeAt(text, at);
    if (text[at] === mark) {
      result += mark === "'" ? "\\'" : text[at];
    } else if (ESCAPES[code] !== undefined) {
      result += ESCAPES[code];
    } else if (code < 32 || (code >= 127 && code <= 159)) {
      result += `\\x${padStart(inUpperCase(hexOf(code, 16)), 2, "0")}`;
    } else if ((code & 0xFC00) === 0xD800 && (codeAt(text, at + 1) & 0xFC00) === 0xDC00) {
      result += text[at] + text[++at];
    } else {
      result += (code & 0xF800) === 0xD800 ? `\\u${hexOf(code, 16)}` : text[at];
    }
  }
  return result;
}

function spaces(count) {
  return padEnd("", count);
}

// All entries in one line, if that is short and has few levels. Otherwise a long list is in columns, and anything else
// has one entry per line.
function joined(base, { open, close, isList }, output, object, to, level) {
  const before = base === "" ? "" : `${base} `;
  const isLong = isList && output.length > 6;
  const lines = isLong ? inColumns(output, isArray(object) ? object : null, to) : output;
  if (to.deepest - level < COMPACT && lines === output) {
    const start = output.length + to.indent + open.length + base.length + 10;
    if (fits(output, start, to.width)) {
      const text = list(output, ", ");
      if (!hasBreak(text)) {
        return `${before}${open} ${text} ${close}`;
      }
    }
  }
  const indent = `\n${spaces(to.indent)}`;
  return `${before}${open}${indent}  ${list(lines, `,${indent}  `)}${indent}${close}`;
}

function list(items, separator) {
  let text = "";
  for (let at = 0; at < items.length; at++) {
    text += (at === 0 ? "" : separator) + items[at];
  }
  return text;
}

function hasBreak(text) {
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "\n") {
      return true;
    }
  }
  return false;
}

function fits(output, start, width) {
  let total = output.length + start;
  if (total + output.length > width) {
    return false;
  }
  for (let at = 0; at < output.length && total <= width; at++) {
    total += output[at].length;
  }
  return total <= width;
}

// Like `groupArrayElements` of Node: the number of columns makes the block about square.
function inColumns(output, array, to) {
  const count = to.most < output.length ? output.length - 1 : output.length;  // without "... more items"
  let total = 0;
  let longest = 0;
  for (let at = 0; at < count; at++) {
    total += output[at].length + 2;
    longest = max(longest, output[at].length);
  }
  const cell = longest + 2;
  if (cell * 3 + to.indent >= to.width || !(total / cell > 5 || longest <= 6)) {
    return output;
  }
  const biased = max(cell - 3 - sqrt(cell - total / output.length), 1);
  const columns = min(min(round(sqrt(2.5 * biased * count) / biased), floor((to.width - to.indent) / cell)), 4 * COMPACT);
  if (columns <= 1) {
    return output;
  }
  const widths = arrayOf();
  for (let column = 0; column < columns; column++) {
    let width = 0;
    for (let at = column; at < count; at += columns) {
      width = max(width, output[at].length);
    }
    append(widths, width + 2);
  }
  let areNumbers = true;
  for (let at = 0; array !== null && at < count && areNumbers; at++) {
    const value = getOwnPropertyDescriptor(array, at)?.value;
    areNumbers = typeof value === "number" || typeof value === "bigint";
  }
  const lines = arrayOf();
  for (let start = 0; start < count; start += columns) {
    const end = min(start + columns, count);
    let line = "";
    for (let at = start; at < end; at++) {
      const text = at < end - 1 ? `${output[at]}, ` : output[at];
      const width = widths[at - start] - (at < end - 1 ? 0 : 2);
      line += areNumbers ? padStart(text, width) : at < end - 1 ? padEnd(text, width) : text;
    }
    append(lines, line);
  }
  if (count < output.length) {
    append(lines, output[count]);
  }
  return lines;
}

return { __proto__: null, quoted, spaces, joined, list };
