// JSON that can be read: one line, or a tree that folds. Branches are made when they are unfolded.

import { make } from "../dom.js";

const BRANCH_SHOWN = 200;

/** The object or array that a text is as JSON; undefined if it is none. Bare numbers and strings are better read as they are. */
export function parseJson(text) {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** As one line that can be broken; cut off where it is long. */
export function oneLine(value) {
  // Only between its parts are there line breaks: in its texts they are escaped.
  const line = JSON.stringify(value, null, 1).replace(/([[{])\n\s*|\n\s*([\]}])/g, "$1$2").replace(/\n\s*/g, " ");
  return line.length > 240 ? `${line.slice(0, 240)} …` : line;
}

/** As a tree, its first level unfolded. */
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
