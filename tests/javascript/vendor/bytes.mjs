// Stands in for @exodus/bytes and for lib/encoding.js of whatwg-url. URLs of scripts are in UTF-8.

const { TextDecoder, TextEncoder } = part("encoding");
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

// Most texts are single ASCII characters, and nobody changes the bytes.
const ascii = Array.from({ length: 0x80 }, (_, code) => new Uint8Array([code]));

export function utf8Encode(text) {
  return text.length === 1 && text < "\x80" ? ascii[text.charCodeAt(0)] : encoder.encode(text);
}

export const utf8DecodeWithoutBOM = (bytes) => decoder.decode(bytes);

export function percentEncodeAfterEncoding(encoding, text, encoded) {
  let output = "";
  for (const byte of encoder.encode(text)) {
    const character = String.fromCharCode(byte);
    output += byte > 0x1F && byte < 0x7F && !encoded.includes(character) ? character :
      `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return output;
}
