// TextEncoder and TextDecoder (https://encoding.spec.whatwg.org), atob and btoa (https://html.spec.whatwg.org). Short texts
// are converted here, others by Python.

const {
  encodeBase64, decodeBase64, encodeText, decodeBytes, findEncoding, bytesOf, webClass, kindOf, DOMException,
} = tools;

const SHORT = 64;

class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(text = "") {
    const whole = `${text}`;
    if (whole.length > SHORT) {
      return encodeText(whole);
    }
    const bytes = new Uint8Array(3 * whole.length);
    return bytes.slice(0, into(bytes, whole).written);
  }

  encodeInto(text, bytes) {
    if (!(bytes instanceof Uint8Array)) {
      throw new TypeError(`encodeInto takes a Uint8Array, not ${kindOf(bytes)}`);
    }
    return into(bytes, `${text}`);
  }
}

// Writes as many whole characters as fit.
function into(bytes, text) {
  let read = 0;
  let written = 0;
  while (read < text.length) {
    let code = text.codePointAt(read);
    const units = code > 0xFFFF ? 2 : 1;
    if ((code & 0xFFFFF800) === 0xD800) {
      code = 0xFFFD;
    }
    const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (written + size > bytes.length) {
      break;
    }
    if (size === 1) {
      bytes[written] = code;
    } else {
      bytes[written] = (0xF00 >> size) & 0xFF | code >> 6 * (size - 1);
      for (let at = 1; at < size; at++) {
        bytes[written + at] = 0x80 | (code >> 6 * (size - 1 - at) & 0x3F);
      }
    }
    read += units;
    written += size;
  }
  return { read, written };
}

class TextDecoder {
  #encoding;
  #fatal;
  #ignoreBOM;
  #isInStream = false;
  #begins = true;  // whether a byte order mark may follow
  #rest = "";
  #flag = "-1";

  constructor(label = "utf-8", options = {}) {
    const encoding = findEncoding(`${label}`);
    if (encoding === undefined) {
      throw new RangeError(`there is no encoding with the label ${JSON.stringify(`${label}`.slice(0, 40))}`);
    }
    this.#encoding = encoding;
    this.#fatal = Boolean(options?.fatal);
    this.#ignoreBOM = Boolean(options?.ignoreBOM);
  }

  get encoding() {
    return this.#encoding;
  }

  get fatal() {
    return this.#fatal;
  }

  get ignoreBOM() {
    return this.#ignoreBOM;
  }

  decode(input, options = {}) {
    const isLast = !options?.stream;
    const bytes = input === undefined ? new Uint8Array(0) : bytesOf(input);
    if (bytes === null) {
      throw new TypeError(`decode takes an ArrayBuffer or a view, not ${kindOf(input)}`);
    }
    if (!this.#isInStream) {
      this.#restart();
    }
    this.#isInStream = !isLast;
    let text = this.#rest === "" && this.#encoding === "utf-8" && isLast ? shortAscii(bytes) : null;
    if (text === null) {
      const answer = decodeBytes(bytes, this.#encoding, this.#fatal, isLast, this.#rest, this.#flag);
      if (answer === undefined) {
        this.#isInStream = false;
        throw new TypeError(`the bytes are not valid ${this.#encoding}`);
      }
      text = answer[0];
      this.#rest = answer[1];
      this.#flag = answer[2];
    }
    if (this.#begins && text !== "") {
      this.#begins = false;
      if (!this.#ignoreBOM && text[0] === "\ufeff" && /^utf/.test(this.#encoding)) {
        text = text.slice(1);
      }
    }
    return text;
  }

  #restart() {
    this.#begins = true;
    this.#rest = "";
    this.#flag = "-1";
  }
}

// The text, if the bytes are few and ASCII, else null.
function shortAscii(bytes) {
  if (bytes.length > SHORT) {
    return null;
  }
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] > 0x7F) {
      return null;
    }
  }
  return String.fromCharCode.apply(null, bytes);
}

function atob(data) {
  if (arguments.length === 0) {
    throw new TypeError("atob takes a text");
  }
  const text = decodeBase64(`${data}`);
  if (text === undefined) {
    throw new DOMException("the text is not valid base64", "InvalidCharacterError");
  }
  return text;
}

function btoa(data) {
  if (arguments.length === 0) {
    throw new TypeError("btoa takes a text");
  }
  const text = encodeBase64(`${data}`);
  if (text === undefined) {
    throw new DOMException("btoa takes characters up to U+00FF: encode others with TextEncoder", "InvalidCharacterError");
  }
  return text;
}

webClass(TextEncoder, "TextEncoder", ["encoding"]);
webClass(TextDecoder, "TextDecoder", ["encoding", "fatal", "ignoreBOM"]);
return { __proto__: null, TextEncoder, TextDecoder, atob, btoa };
