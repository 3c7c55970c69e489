// Formats numbers, sizes and times, short enough for a table.

const NONE = "–";

/** 1234 as 1,234. */
export function count(number) {
  return number === null || number === undefined ? NONE : Math.round(number).toLocaleString("en");
}

/** A number with at most three digits, such as 0.25, 3.1, 12, 1.2k, 3.4M. */
export function short(number) {
  if (number === null || number === undefined) return NONE;
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(number) >= size * 0.9995) return digits(number / size) + letter;
  }
  return digits(number);
}

function digits(number) {
  const size = Math.abs(number);
  const places = size >= 99.95 || Number.isInteger(number) ? 0 : size >= 9.995 ? 0 : size >= 0.995 ? 1 : 2;
  return String(Number(number.toFixed(places)));
}

/** A rate, such as 3.1/s. */
export function rate(number) {
  return number === null || number === undefined ? NONE : `${short(number)}/s`;
}

/** Bytes, such as 512 B, 1.2 kB, 3.4 MB. */
export function bytes(number) {
  if (number === null || number === undefined) return NONE;
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (number >= size * 0.9995) return `${digits(number / size)} ${unit}`;
  }
  return `${Math.round(number)} B`;
}

/** A duration in seconds, such as 240 µs, 3.1 ms, 1.2 s. */
export function seconds(number) {
  if (number === null || number === undefined) return NONE;
  if (number === 0) return "0 ms";
  if (number < 0.001) return `${digits(number * 1e6)} µs`;
  if (number < 1) return `${digits(number * 1000)} ms`;
  return `${digits(number)} s`;
}

/** An age in seconds, such as 12 s, 3 min, 2 h 5 min, 4 d 3 h. */
export function age(number) {
  const whole = Math.max(0, Math.floor(number));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${Math.floor(hours / 24)} d`;
}

const pad = (number, length = 2) => String(number).padStart(length, "0");

/** The time of day for seconds since the epoch, such as 14:03:09, or 14:03:09.042. */
export function clock(epochSeconds, { milliseconds = false, seconds: withSeconds = true } = {}) {
  const date = new Date(epochSeconds * 1000);
  let text = `${pad(date.getHours())}:${pad(date.getMinutes())}`;
  if (withSeconds || milliseconds) text += `:${pad(date.getSeconds())}`;
  return milliseconds ? `${text}.${pad(date.getMilliseconds(), 3)}` : text;
}

/** One or several: plural(1, "room") is "1 room". */
export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

/** A place such as chat.js:12:5. Unknown parts are left out; "" without a file. */
export function place({ file, line, column }) {
  return [file, line, column].filter((part) => part !== null && part !== undefined).join(":");
}
