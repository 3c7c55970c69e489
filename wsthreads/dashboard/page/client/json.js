// Shows JSON as one line, or as a tree that unfolds. Branches are made when they are unfolded.

import { make } from "../dom.js";

const BRANCH_SHOWN = 200;

/** Parse a text as a JSON object or array; undefined if it is neither. Plain numbers and strings need no tree. */
export function parseJson(text) {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A value as one line that may wrap; cut if it is long. */
export function oneLine(value) {
  // Line breaks occur only between parts, because in strings they are escaped.
  const line = JSON.stringify(value, null, 1).replace(/([[{])\n\s*|\n\s*([\]}])/g, "$1$2").replace(/\n\s*/g, " ");
  return line.length > 240 ? `${line.slice(0, 240)} …` : line;
}

/** A value as a tree, with its first level unfolded. */
export function tree(value) {
  return make("div", { className: "json" }, ...branches(value, 1));
}

function branches(value, levelsOpen) {
  const entries = Array.isArray(value) ? value.map((item, index) => [index, item]) : Object.entries(value);
  const shown = entries.slice(0, BRANCH_SHOWN).map(([key, item]) => branch(key, item, levelsOpen));
  if (entries.length > BRANCH_SHOWN) shown.push(make("div", { className: "soft", textContent: `… ${entries.length - BRANCH_SHOWN} more` }));
  if (!entries.length) shown.push(make("div", { className: "soft", textContent: "empty" }));
  return shown;
}

function branch(key, value, levelsOpen) {
  const name = make("span", { className: "json-key", textContent: `${key}: ` });
  if (value === null || typeof value !== "object") return make("div", { className: "json-leaf" }, name, leaf(value));
  const size = Array.isArray(value) ? value.length : Object.keys(value).length;
  const kind = Array.isArray(value) ? `[${size}]` : `{${size}}`;
  const details = make("details", { open: levelsOpen > 1 }, make("summary", {}, name, make("span", { className: "soft", textContent: kind })));
  const fill = () => {
    if (details.open && details.children.length === 1) details.append(make("div", { className: "json-branch" }, ...branches(value, levelsOpen - 1)));
  };
  details.addEventListener("toggle", fill);
  fill();
  return details;
}

function leaf(value) {
  return make("span", { className: `json-${value === null ? "null" : typeof value}`, textContent: JSON.stringify(value) });
}
