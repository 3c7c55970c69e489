// fetch, Request and Response (https://fetch.spec.whatwg.org), for a server: there is no cache, no CORS, no cookie jar.

const { part, webClass, kindOf, beginFetch, endFetch } = tools;
const { makeHeaders, setDefault } = part("headers");
const { extracted, addBody, fromServer, Body, fetchError } = part("bodies");
const { URL } = part("url");

const MAX_REDIRECTS = 20;
const METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"];
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;
const OF_BODY = ["content-encoding", "content-language", "content-location", "content-type", "content-length"];
const OF_ORIGIN = ["authorization", "cookie", "proxy-authorization"];

let bodyOfRequest, bodyOfResponse, partsOf, received;

class Request {
  #url;
  #method = "GET";
  #headers;
  #body = null;
  #redirect = "follow";
  #signal = null;

  constructor(input, init = {}) {
    if (arguments.length === 0) {
      throw new TypeError("a Request has a URL");
    }
    const options = init ?? {};
    const from = typeof input === "object" && input !== null && #url in input ? input : null;
    this.#url = from === null ? urlOf(input) : from.#url;
    this.#method = options.method === undefined ? from?.#method ?? "GET" : methodOf(options.method);
    this.#redirect = options.redirect === undefined ? from?.#redirect ?? "follow" : `${options.redirect}`;
    if (!["follow", "error", "manual"].includes(this.#redirect)) {
      throw new TypeError(`redirect is "follow", "error" or "manual", not ${JSON.stringify(this.#redirect)}`);
    }
    this.#signal = options.signal === undefined ? from?.#signal ?? null : signalOf(options.signal);
    this.#headers = makeHeaders(options.headers ?? from?.#headers, "request");
    const hasBody = options.body !== undefined && options.body !== null;
    if ((hasBody || (from !== null && from.#body !== null)) && (this.#method === "GET" || this.#method === "HEAD")) {
      throw new TypeError(`a ${this.#method} request has no body`);
    }
    if (hasBody) {
      const [body, type] = extracted(options.body);
      this.#body = body;
      setDefault(this.#headers, "content-type", type);
    } else if (from !== null && from.#body !== null) {
      this.#body = new Body(from.#body.use());
    }
  }

  get method() {
    return this.#method;
  }

  get url() {
    return this.#url;
  }

  get headers() {
    return this.#headers;
  }

  get redirect() {
    return this.#redirect;
  }

  get signal() {
    return this.#signal ??= new (part("aborting").AbortController)().signal;
  }

  clone() {
    const copy = new Request(this.#url, { method: this.#method, headers: this.#headers, redirect: this.#redirect });
    copy.#signal = this.#signal;
    copy.#body = this.#body?.clone() ?? null;
    return copy;
  }

  static {
    bodyOfRequest = (request) => request.#body;
    partsOf = (request) => ({
      method: request.#method, url: request.#url, headers: request.#headers, body: request.#body,
      redirect: request.#redirect, signal: request.#signal,
    });
  }
}

function urlOf(input) {
  let url;
  try {
    url = new URL(`${input}`);
  } catch {
    throw new TypeError(`fetch takes a whole URL, such as https://example.com/, not ${JSON.stringify(`${input}`.slice(0, 100))}`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new TypeError("fetch takes no URL with a user or a password: send the header authorization");
  }
  return url.href;
}

function methodOf(value) {
  const method = `${value}`;
  const upper = method.toUpperCase();
  if (!TOKEN.test(method) || ["CONNECT", "TRACE", "TRACK"].includes(upper)) {
    throw new TypeError(`fetch refuses the method ${JSON.stringify(method.slice(0, 40))}`);
  }
  return METHODS.includes(upper) ? upper : method;
}

function signalOf(value) {
  if (value !== null && !(value instanceof part("aborting").AbortSignal)) {
    throw new TypeError(`signal is an AbortSignal, not ${kindOf(value)}`);
  }
  return value;
}

class Response {
  #type = "default";
  #url = "";
  #isRedirected = false;
  #status;
  #statusText;
  #headers;
  #body = null;

  constructor(body = null, init = {}) {
    const options = init ?? {};
    this.#status = options.status === undefined ? 200 : Number(options.status) & 0xFFFF;
    if (!(this.#status >= 200 && this.#status <= 599)) {
      throw new RangeError(`the status of a Response is from 200 to 599, not ${options.status}`);
    }
    this.#statusText = options.statusText === undefined ? "" : `${options.statusText}`;
    if (!REASON.test(this.#statusText)) {
      throw new TypeError("statusText has a character that HTTP cannot send");
    }
    this.#headers = makeHeaders(options.headers, "none");
    const [made, type] = extracted(body);
    if (made !== null && [204, 205, 304].includes(this.#status)) {
      throw new TypeError(`a response with the status ${this.#status} has no body`);
    }
    this.#body = made;
    setDefault(this.#headers, "content-type", type);
  }

  static error() {
    return received({ type: "error", status: 0 });
  }

  static redirect(url, status = 302) {
    const { href } = new URL(`${url}`);
    if (![301, 302, 303, 307, 308].includes(Number(status))) {
      throw new RangeError(`the status of a redirect is 301, 302, 303, 307 or 308, not ${status}`);
    }
    return received({ type: "default", status: Number(status), headers: [["location", href]] });
  }

  static json(data, init = {}) {
    const text = JSON.stringify(data);
    if (text === undefined) {
      throw new TypeError(`${kindOf(data)} cannot be converted to JSON`);
    }
    const headers = makeHeaders(init?.headers, "none");
    setDefault(headers, "content-type", "application/json");
    return new Response(text, { ...init, headers });
  }

  get type() {
    return this.#type;
  }

  get url() {
    return this.#url;
  }

  get redirected() {
    return this.#isRedirected;
  }

  get status() {
    return this.#status;
  }

  get ok() {
    return this.#status >= 200 && this.#status <= 299;
  }

  get statusText() {
    return this.#statusText;
  }

  get headers() {
    return this.#headers;
  }

  clone() {
    const body = this.#body?.clone() ?? null;
    return received({
      type: this.#type, url: this.#url, isRedirected: this.#isRedirected, status: this.#status,
      statusText: this.#statusText, headers: this.#headers, guard: this.#type === "basic" ? "immutable" : "none", body,
    });
  }

  static {
    bodyOfResponse = (response) => response.#body;
    received = ({ type, url = "", isRedirected = false, status, statusText = "", headers = [], guard = "immutable", body = null }) => {
      const response = new Response();
      response.#type = type;
      response.#url = url;
      response.#isRedirected = isRedirected;
      response.#status = status;
      response.#statusText = statusText;
      response.#headers = makeHeaders(headers, guard);
      response.#body = body;
      return response;
    };
  }
}

async function fetch(input, init = undefined) {
  const request = partsOf(new Request(input, init));
  const { signal } = request;
  signal?.throwIfAborted();
  const source = request.body?.use();
  const bytes = source === undefined ? null : source.memory ?? await new Body(source).bytes();
  let number = 0;
  let reject;
  // Weak: a listener of the script's can refer to the response, which must not keep itself alive through its `settle`.
  const listened = signal === null ? null : new WeakRef(signal);
  const abortion = {
    isAborted: false,
    reason: undefined,
    settle: () => listened?.deref()?.removeEventListener("abort", stop),
    orThrow(value) {
      if (this.isAborted) {
        throw this.reason;
      }
      return value;
    },
  };
  const aborted = new Promise((_, rejecting) => {
    reject = rejecting;
  });
  aborted.catch(() => {});
  const stop = ({ target }) => {
    abortion.isAborted = true;
    abortion.reason = target.reason;
    endFetch(number);
    reject(target.reason);
  };
  signal?.addEventListener("abort", stop, { once: true });
  // One request. Throws an error of fetch.
  const send = (method, url, headers, sent) => Promise.race([aborted, beginFetch(
    number, method, url.split("#")[0], JSON.stringify(Object.fromEntries(headers)), sent, (ticket) => {
      number ||= ticket;
    })]);
  try {
    signal?.throwIfAborted();
    return await followed(request, bytes, send, abortion, () => number);
  } catch (error) {
    abortion.settle();
    endFetch(number);
    throw abortion.isAborted ? abortion.reason : fetchError(error);
  }
}

async function followed({ method, url, headers, redirect }, bytes, send, abortion, numberOf) {
  let sent = bytes;
  for (let count = 0; ; count++) {
    const [status, statusText, pairs] = await send(method, url, headers, sent);
    const location = pairs.find((pair) => pair[0].toLowerCase() === "location")?.[1];
    if (redirect === "manual" || location === undefined || ![301, 302, 303, 307, 308].includes(status)) {
      const isEmpty = method === "HEAD" || [204, 205, 304].includes(status);
      const source = fromServer(numberOf(), abortion);
      if (isEmpty) {
        source.pull(true).catch(() => {});
      }
      return received({
        type: "basic", url: url.split("#")[0], isRedirected: count > 0, status, statusText, headers: pairs,
        body: isEmpty ? null : new Body(source),
      });
    }
    if (redirect === "error") {
      throw new TypeError(`${method} ${new URL(url).origin}: the server redirects, and redirect is "error"`);
    }
    if (count === MAX_REDIRECTS) {
      throw new TypeError(`${method} ${new URL(url).origin}: more than ${MAX_REDIRECTS} redirects`);
    }
    // Headers are bytes and arrive as Latin-1. Browsers read the bytes of an address as UTF-8.
    const escaped = location.replace(/[\x80-\xff]/g, (byte) => "%" + byte.charCodeAt().toString(16));
    const next = new URL(escaped, url);
    const isOfSameOrigin = next.origin === new URL(url).origin;
    if ((status === 303 && method !== "GET" && method !== "HEAD") || (status < 303 && method === "POST")) {
      method = "GET";
      sent = null;
      for (const name of OF_BODY) {
        headers.delete(name);
      }
    }
    if (!isOfSameOrigin) {
      for (const name of OF_ORIGIN) {
        headers.delete(name);
      }
    }
    url = urlOf(next);
  }
}

addBody(Request, bodyOfRequest);
addBody(Response, bodyOfResponse);
webClass(Request, "Request", ["method", "url", "headers", "redirect", "bodyUsed"]);
webClass(Response, "Response", ["status", "statusText", "ok", "redirected", "url", "headers", "type", "bodyUsed"]);
return { __proto__: null, fetch, Request, Response };
