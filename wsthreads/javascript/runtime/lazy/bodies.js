// Bodies of requests and responses (https://fetch.spec.whatwg.org/#bodies).
//
// A body has a source: memory, a server, or a branch of a clone. Its `pull` promises the next bytes, or null at the
// end. Callers wait for the result before the next call.

const { part, webClass, kindOf, bytesOf, encodeText, decodeBytes, readFetched, takeFetched, endFetch, DOMException,
  newRegistry, callStack, setHidden } = tools;

const EMPTY = new Uint8Array(0);

// Ends a fetch when nothing refers to its body any longer.
const dropped = newRegistry(({ number, settle }) => {
  endFetch(number);
  settle();
});

function fromMemory(bytes) {
  let rest = bytes;
  const pull = async () => {
    const chunk = rest;
    rest = EMPTY;
    return chunk.length === 0 ? null : chunk;
  };
  return { memory: bytes, pull, cancel: () => void (rest = EMPTY) };
}

// `abortion` has the signal's `reason` once it `isAborted`, and a function `settle` to call at the end of the body.
function fromServer(number, abortion) {
  const handle = { number, isOver: false };
  const token = {};  // QuickJS keeps it alive
  const end = () => {
    handle.isOver = true;
    dropped.unregister(token);
    abortion.settle();
  };
  dropped.register(handle, { number, settle: abortion.settle }, token);
  const pull = async (wantsAll = false) => {
    if (handle.isOver) {
      return abortion.orThrow(null);
    }
    try {
      const hasMore = await readFetched(handle.number, wantsAll);
      const bytes = abortion.orThrow(hasMore) ? takeFetched(handle.number) : null;
      if (wantsAll || !hasMore) {
        end();
      }
      return bytes;
    } catch (error) {
      end();
      endFetch(handle.number);
      throw abortion.isAborted ? abortion.reason : fetchError(error);
    }
  };
  const cancel = () => {
    end();
    endFetch(handle.number);
  };
  return { memory: null, pull, cancel };
}

// The error that a script gets for an error of the Python half.
function fetchError(error) {
  const { name, message, stack } = error;
  if (error instanceof TypeError || error instanceof DOMException) {
    return error;
  }
  const made = name === "TimeoutError" || name === "AbortError" ? new DOMException(message, name) : new TypeError(message);
  Object.defineProperty(made, "stack", { value: stack, writable: true, configurable: true });
  return made;
}

// Two sources that each give all bytes of `source`.
function tee(source) {
  if (source.memory !== null) {
    return [fromMemory(source.memory), fromMemory(source.memory)];
  }
  let pending = null;
  let failure = null;
  let hasEnded = false;
  const queues = [[], []];
  const more = () => pending ??= (async () => {
    try {
      const chunk = await source.pull();
      hasEnded = chunk === null;
      for (const queue of queues) {
        if (chunk !== null && queue !== null) {
          queue.push(queue === queues[0] ? chunk : chunk.slice());
        }
      }
    } catch (error) {
      failure = { error };
    }
    pending = null;
  })();
  return [0, 1].map((index) => ({
    memory: null,
    async pull() {
      while (queues[index]?.length === 0 && !hasEnded && failure === null) {
        await more();
      }
      const chunk = queues[index]?.shift() ?? null;
      if (chunk === null && failure !== null) {
        throw failure.error;
      }
      return chunk;
    },
    cancel() {
      queues[index] = null;
      if (queues[1 - index] === null) {
        source.cancel();
      }
    },
  }));
}

class Body {
  isUsed = false;
  isLocked = false;
  stream = null;

  constructor(source) {
    this.source = source;
  }

  // Marks the body as used.
  use() {
    if (this.isUsed || this.isLocked) {
      throw new TypeError(this.isUsed ? "the body was read already" : "the body is read through body.getReader()");
    }
    this.isUsed = true;
    return this.source;
  }

  async bytes() {
    const source = this.use();
    const chunks = [];
    let size = 0;
    for (let chunk = await source.pull(true); chunk !== null; chunk = await source.pull(true)) {
      chunks.push(chunk);
      size += chunk.length;
    }
    if (chunks.length === 1 && source.memory === null) {
      return chunks[0];
    }
    const all = new Uint8Array(size);
    let place = 0;
    for (const chunk of chunks) {
      all.set(chunk, place);
      place += chunk.length;
    }
    return all;
  }

  clone() {
    if (this.isUsed || this.isLocked) {
      throw new TypeError("a body that was read cannot be cloned");
    }
    const [mine, other] = tee(this.source);
    this.source = mine;
    return new Body(other);
  }
}

let streamOf, bodyOf;

// The bytes as they arrive. Has the part of the web's ReadableStream that most programs use.
class BodyStream {
  #body;
  #last = Promise.resolve();

  constructor(body) {
    this.#body = body;
  }

  get locked() {
    return this.#body.isLocked;
  }

  async cancel() {
    if (this.#body.isLocked) {
      throw new TypeError("the stream is locked by a reader");
    }
    this.#cancel();
  }

  #cancel() {
    this.#body.isUsed = true;
    this.#body.source.cancel();
  }

  #pull() {
    const { source } = this.#body;
    this.#body.isUsed = true;
    const step = this.#last.then(() => source.pull());
    this.#last = step.catch(() => {});
    return step.then((value) => value === null ? { value: undefined, done: true } : { value, done: false });
  }

  getReader(options = undefined) {
    if (options?.mode !== undefined) {
      throw new TypeError("body.getReader() takes no option mode");
    }
    if (this.#body.isLocked) {
      throw new TypeError("the stream is locked by a reader");
    }
    this.#body.isLocked = true;
    let isMine = true;
    const mine = () => {
      if (!isMine) {
        throw new TypeError("the reader was released");
      }
    };
    return {
      read: async () => (mine(), this.#pull()),
      cancel: async () => (mine(), this.#cancel()),
      releaseLock: () => {
        if (isMine) {
          isMine = this.#body.isLocked = false;
        }
      },
    };
  }

  values({ preventCancel = false } = {}) {
    const reader = this.getReader();
    let hasEnded = false;
    const end = () => {
      hasEnded = true;
      reader.releaseLock();
    };
    return {
      next: async () => {
        if (hasEnded) {
          return { value: undefined, done: true };
        }
        try {
          const step = await reader.read();
          if (step.done) {
            end();
          }
          return step;
        } catch (error) {
          end();
          throw error;
        }
      },
      return: async (value) => {
        if (!hasEnded && !preventCancel) {
          await reader.cancel();
        }
        end();
        return { value, done: true };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  [Symbol.asyncIterator](options) {
    return this.values(options);
  }

  static {
    streamOf = (body) => body === null ? null : body.stream ??= new BodyStream(body);
    bodyOf = (stream) => new Body(stream.#body.use());
  }
}

// The body of a Request or Response from a script's value, and its content type.
function extracted(value) {
  if (value === null || value === undefined) {
    return [null, null];
  }
  if (typeof value === "object" || typeof value === "function") {
    const bytes = bytesOf(value);
    if (bytes !== null) {
      return [new Body(fromMemory(new Uint8Array(bytes))), null];
    }
    if (value instanceof BodyStream) {
      return [bodyOf(value), null];
    }
    if (value instanceof part("url").URLSearchParams) {
      const type = "application/x-www-form-urlencoded;charset=UTF-8";
      return [new Body(fromMemory(encodeText(`${value}`))), type];
    }
    throw new TypeError(`a body is a text, bytes or URLSearchParams, not ${kindOf(value)}; JSON.stringify makes a text`);
  }
  return [new Body(fromMemory(encodeText(`${value}`))), "text/plain;charset=UTF-8"];
}

function textOf(bytes) {
  const [text] = decodeBytes(bytes, "utf-8", false, true, "", "-1");
  return text[0] === "\ufeff" ? text.slice(1) : text;
}

function unavailable(name) {
  return new TypeError(`${name}() is not available in scripts: use bytes() or text()`);
}

// The common part of Request and Response. `of` returns the Body of one, or null.
function addBody(made, of) {
  const bytes = async (one) => {
    const body = of(one);
    return body === null ? new Uint8Array(0) : body.bytes();
  };
  const methods = {
    get body() {
      return streamOf(of(this));
    },
    get bodyUsed() {
      return of(this)?.isUsed ?? false;
    },
    async bytes() {
      return bytes(this);
    },
    async arrayBuffer() {
      const { buffer, byteOffset, byteLength } = await bytes(this);
      return byteLength === buffer.byteLength ? buffer : buffer.slice(byteOffset, byteOffset + byteLength);
    },
    async text() {
      return textOf(await bytes(this));
    },
    async json() {
      const stack = callStack();
      const text = textOf(await bytes(this));
      try {
        return JSON.parse(text);
      } catch (error) {
        const sender = this.url ? `the body from ${new (part("url").URL)(this.url).origin}` : "the body";
        const explained = new SyntaxError(`${sender} is not JSON: ${error.message}`);
        setHidden(explained, "stack", stack);
        throw explained;
      }
    },
    async blob() {
      throw unavailable("blob");
    },
    async formData() {
      throw unavailable("formData");
    },
  };
  for (const name of Object.keys(methods)) {
    Object.defineProperty(made.prototype, name, Object.getOwnPropertyDescriptor(methods, name));
  }
}

webClass(BodyStream, "ReadableStream", ["locked"]);
return { __proto__: null, Body, fromServer, extracted, addBody, fetchError };
