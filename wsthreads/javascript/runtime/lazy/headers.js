// Headers (https://fetch.spec.whatwg.org/#headers-class). A request leaves out headers that only the connection itself
// may set. Python refuses these, too.

const { webClass, kindOf } = tools;

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const VALUE = /^[^\0\r\n\u0100-\uffff]*$/;
const OWN = ["accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te",
  "trailer", "transfer-encoding", "upgrade"];

let makeHeaders, setDefault;

const isBlank = (char) => char === " " || char === "\t" || char === "\n" || char === "\r";

/** The text without blanks around it. A regular expression would be slow with many blanks in the text. */
function stripped(text) {
  let begin = 0;
  let end = text.length;
  while (begin < end && isBlank(text[begin])) begin++;
  while (begin < end && isBlank(text[end - 1])) end--;
  return text.slice(begin, end);
}

class Headers {
  #lists = new Map();  // the values of a name, which is in lower case
  #entries = null;  // as `entries` gives them, until the next change
  #guard = "none";  // or "request" or "immutable"

  constructor(init) {
    if (init !== undefined) {
      this.#fill(init);
    }
  }

  #fill(init) {
    if ((typeof init !== "object" && typeof init !== "function") || init === null) {
      throw new TypeError(`headers are an object, or a list of names and values, not ${kindOf(init)}`);
    }
    if (init[Symbol.iterator] !== undefined && init[Symbol.iterator] !== null) {
      for (const pair of init) {
        const [name, value, ...more] = typeof pair === "object" && pair !== null ? pair : [];
        if (value === undefined || more.length > 0) {
          throw new TypeError("a list of headers has pairs of a name and a value");
        }
        this.append(name, value);
      }
      return;
    }
    for (const name of Reflect.ownKeys(init)) {
      if (Reflect.getOwnPropertyDescriptor(init, name)?.enumerable) {
        this.append(name, init[name]);
      }
    }
  }

  append(name, value) {
    const [key, text] = this.#checked(arguments.length, name, value);
    if (this.#mayChange(key)) {
      const values = this.#lists.get(key);
      if (values === undefined) {
        this.#lists.set(key, [text]);
      } else {
        values.push(text);
      }
    }
  }

  set(name, value) {
    const [key, text] = this.#checked(arguments.length, name, value);
    if (this.#mayChange(key)) {
      this.#lists.set(key, [text]);
    }
  }

  delete(name) {
    const key = nameOf(name);
    if (this.#mayChange(key)) {
      this.#lists.delete(key);
    }
  }

  get(name) {
    return this.#lists.get(nameOf(name))?.join(", ") ?? null;
  }

  has(name) {
    return this.#lists.has(nameOf(name));
  }

  getSetCookie() {
    return [...this.#lists.get("set-cookie") ?? []];
  }

  #checked(count, name, value) {
    if (count < 2) {
      throw new TypeError("a header has a name and a value");
    }
    const key = nameOf(name);
    const text = stripped(`${value}`);
    if (!VALUE.test(text)) {
      throw new TypeError(`the value of the header ${key} has a line break, or a character that HTTP cannot send`);
    }
    return [key, text];
  }

  #mayChange(key) {
    if (this.#guard === "immutable") {
      throw new TypeError("the headers of a fetched response cannot be changed");
    }
    this.#entries = null;
    return this.#guard !== "request" || !OWN.includes(key);
  }

  // Sorted by name. Headers with equal names are joined, except cookies.
  #sorted() {
    this.#entries ??= [...this.#lists.keys()].sort().flatMap((name) => name === "set-cookie" ?
      this.getSetCookie().map((value) => [name, value]) : [[name, this.get(name)]]);
    return this.#entries;
  }

  *entries() {
    let index = 0;
    for (let all = this.#sorted(); index < all.length; all = this.#sorted()) {
      yield [...all[index++]];
    }
  }

  *keys() {
    for (const [name] of this.entries()) {
      yield name;
    }
  }

  *values() {
    for (const [, value] of this.entries()) {
      yield value;
    }
  }

  forEach(callback, thisArg) {
    if (typeof callback !== "function") {
      throw new TypeError(`forEach takes a function, not ${kindOf(callback)}`);
    }
    for (const [name, value] of this.entries()) {
      Reflect.apply(callback, thisArg, [value, name, this]);
    }
  }

  static {
    makeHeaders = (init, guard) => {
      const headers = new Headers();
      headers.#guard = guard === "immutable" ? "none" : guard;
      if (init !== undefined) {
        headers.#fill(init);
      }
      headers.#guard = guard;
      return headers;
    };
    // The type of a body. Does not replace a type that the script has set.
    setDefault = (headers, name, value) => {
      if (value !== null && !headers.has(name)) {
        headers.append(name, value);
      }
    };
  }
}

function nameOf(name) {
  const text = `${name}`;
  if (!TOKEN.test(text)) {
    throw new TypeError(`${JSON.stringify(text.slice(0, 40))} is not the name of a header`);
  }
  return text.toLowerCase();
}

Object.defineProperty(Headers.prototype, Symbol.iterator, { value: Headers.prototype.entries, writable: true, configurable: true });
webClass(Headers, "Headers", (headers, add) => headers.forEach((value, name) => add(name, value)));
return { __proto__: null, Headers, makeHeaders, setDefault };
