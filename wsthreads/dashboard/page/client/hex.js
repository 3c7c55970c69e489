// Bytes as hexadecimal, both ways.

const SHOWN = 1024;
const PER_LINE = 16;

const hex = (byte) => byte.toString(16).padStart(2, "0");

/** The first bytes on one line. */
export function preview(data, most = 12) {
  const shown = Array.from(data.subarray(0, most), hex).join(" ");
  return data.length > most ? `${shown} …` : shown;
}

/** A hex dump of the first 1,024 bytes. Each line has the offset, sixteen bytes, and their characters. */
export function dump(data) {
  const lines = [];
  for (let at = 0; at < Math.min(data.length, SHOWN); at += PER_LINE) {
    const part = Array.from(data.subarray(at, at + PER_LINE));
    const characters = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${part.map(hex).join(" ").padEnd(PER_LINE * 3 - 1)}  ${characters}`);
  }
  if (data.length > SHOWN) lines.push(`… ${data.length - SHOWN} more bytes`);
  return lines.join("\n");
}

/** The bytes of a text such as "01 ff 7A" or "01ff7a"; null if it is not hexadecimal. */
export function parseHex(text) {
  const digits = text.replace(/[\s,:]|0x/gi, "");
  if (!/^([0-9a-f]{2})*$/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
