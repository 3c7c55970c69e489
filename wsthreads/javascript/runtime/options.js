// Arguments of the methods that a script calls: options, numbers, and values that become JSON. Each value from a script
// is read once, so that a getter or a proxy cannot answer differently after the check.

const parsed = JSON.parse;
const MAX_KEY_CHARS = 256;  // of an attribute, and of `latest`
const JOIN_OPTIONS = arrayOf("presence", "history", "since", "maxMembers");
const BROADCAST_OPTIONS = arrayOf("keep", "latest");
const SEND_OPTIONS = arrayOf("latest");
const CLOSE_OPTIONS = arrayOf("banS");

// The options of a method as an object without a prototype.
function optionsOf(caller, options, names) {
  const read = { __proto__: null };
  if (options === undefined) {
    return read;
  }
  if (typeof options !== "object" || options === null) {
    throw new ERRORS.TypeError(`${caller} takes options such as { ${names[0]}: … }, not ${kindOf(options)}`);
  }
  const given = keysOf(options);
  for (let index = 0; index < given.length; index++) {
    const name = given[index];
    if (names.indexOf(name) < 0) {
      const known = names.length === 1 ? `the option ${names[0]}` : `the options ${listOf(names)}`;
      throw new ERRORS.TypeError(`${caller} takes ${known}, not ${upTo(name, 40)}`);
    }
    read[name] = options[name];
  }
  return read;
}

// "a, b and c"
function listOf(names) {
  let text = names[0];
  for (let index = 1; index < names.length; index++) {
    text += `${index === names.length - 1 ? " and " : ", "}${names[index]}`;
  }
  return text;
}

function checkedLatest(key) {
  return checkedText("the key of latest", key, MAX_KEY_CHARS);
}

function checkedKeep(keep) {
  if (typeof keep !== "boolean") {
    throw new ERRORS.TypeError(`keep must be true or false, not ${upTo(inspect(keep), 40)}`);
  }
  return keep;
}

// Returns `check(value)` if an option is given. null means not given, because session.getParameter() returns null.
function ifGiven(value, check) {
  return value === undefined || value === null ? undefined : check(value);
}

const checkedHistory = (count) => checkedWhole("history", count, 0, MAX_HISTORY);
const checkedMaxMembers = (count) => checkedWhole("maxMembers", count, 1, MAX_MEMBERS);

function checkedKey(key) {
  return checkedText("the key of an attribute", key, MAX_KEY_CHARS);
}

// A whole number in a range. (Python checks whether the history is on.)
function checkedWhole(what, number, least, most) {
  if (!isInteger(number) || most > 0 && (number < least || number > most)) {
    const kind = typeof number === "number" ? ERRORS.RangeError : ERRORS.TypeError;
    throw new kind(`${what} must be a whole number from ${least} to ${most}, not ${upTo(inspect(number), 40)}`);
  }
  return number;
}

function checkedPosition(since) {
  if (typeof since !== "string") {
    throw new ERRORS.TypeError(`since must be a string that room.position() has returned, not ${upTo(inspect(since), 40)}`);
  }
  return since;
}

// A function for JSON.stringify that notes the first number that is not finite, and its place, in `found`.
function newNotFinite() {
  const holders = arrayOf(), names = arrayOf();  // the path to the current value
  const notFinite = { __proto__: null, found: undefined, check };
  function check(name, value) {
    if (apply(isPrototypeOf, NUMBER_PROTOTYPE, [value])) {
      value = attempt(() => apply(valueOfNumber, value, []), value);
    }
    if (!isObjectOrNumber(value) || notFinite.found !== undefined || typeof value === "number" && isFinite(value)) {
      return value;
    }
    let depth = holders.length;
    while (depth > 0 && holders[depth - 1] !== this) {
      depth--;
    }
    holders.length = names.length = depth;
    append(holders, value);
    append(names, isArray(this) ? `[${name}]` : depth === 0 ? "" : `[${quote(upTo(name, 40))}]`);
    if (typeof value === "number") {
      let place = "";
      for (let index = 0; index < names.length; index++) {
        place += names[index];
      }
      notFinite.found = place === "" ? `${value}` : `${value} at ${upTo(place, 160)}`;
    }
    return value;
  }
  return notFinite;
}

const isObjectOrNumber = (value) => typeof value === "number" || typeof value === "object" && value !== null;

// The value as JSON text. `what` describes it: "a presence value".
function jsonOf(what, value) {
  let text, cause, notFinite;
  try {
    text = quote(value);
    if (typeof text === "string" && isObjectOrNumber(value) && hasText(text, "null")) {
      notFinite = newNotFinite();  // JSON.stringify turns NaN and Infinity into null
      text = quote(value, notFinite.check);
    }
  } catch (error) {  // a cycle, a BigInt, or a toJSON that throws
    cause = error;
  }
  if (notFinite !== undefined && notFinite.found !== undefined) {
    throw new ERRORS.TypeError(`${what} must be JSON, not ${notFinite.found}`);
  }
  if (typeof text !== "string") {
    const options = cause === undefined ? undefined : { __proto__: null, cause };
    throw new ERRORS.TypeError(`${what} must be JSON, not ${upTo(inspect(value), 80)}`, options);
  }
  return text;
}
