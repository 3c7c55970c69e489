// AbortController and AbortSignal (https://dom.spec.whatwg.org/#aborting-ongoing-activities).

const { webClass, startTimeout, callStack, setHidden, DOMException, part } = tools;
const { Event, EventTarget, hasListeners } = part("events");

const PRIVATE = {};  // needed to make an AbortSignal
let abort, makeSignal;

class AbortSignal extends EventTarget {
  #isAborted = false;
  #reason = undefined;
  // Signals of AbortSignal.any that abort with this one. Only those with listeners are kept alive.
  #dependents = [];
  #kept = new Set();
  #sources = [];
  #handler = null;

  constructor(key) {
    if (key !== PRIVATE) {
      throw new TypeError("make an AbortSignal with new AbortController(), AbortSignal.timeout() or AbortSignal.any()");
    }
    super();
  }

  get aborted() {
    return this.#isAborted;
  }

  get reason() {
    return this.#reason;
  }

  addEventListener(type, callback, options) {
    super.addEventListener(type, callback, options);
    this.#keep();
  }

  removeEventListener(type, callback, options) {
    super.removeEventListener(type, callback, options);
    this.#keep();
  }

  #keep() {
    const isHeard = hasListeners(this, "abort") && !this.#isAborted;
    for (const source of this.#sources) {
      source.#kept[isHeard ? "add" : "delete"](this);
    }
  }

  throwIfAborted() {
    if (this.#isAborted) {
      throw this.#reason;
    }
  }

  get onabort() {
    return this.#handler;
  }

  set onabort(handler) {
    if (this.#handler === null && typeof handler === "function") {
      this.addEventListener("abort", (event) => {
        if (this.#handler !== null) {
          Reflect.apply(this.#handler, this, [event]);
        }
      });
    }
    this.#handler = typeof handler === "function" ? handler : null;
  }

  static abort(reason) {
    const signal = makeSignal();
    signal.#isAborted = true;
    signal.#reason = orAbortError(reason);
    return signal;
  }

  static timeout(milliseconds) {
    const ms = Number(milliseconds);
    if (!(ms >= 0 && ms <= Number.MAX_SAFE_INTEGER)) {
      throw new TypeError(`AbortSignal.timeout takes milliseconds from 0 on, not ${String(milliseconds)}`);
    }
    const signal = makeSignal();
    const stack = callStack();
    startTimeout(() => {
      const reason = new DOMException(`the ${ms} ms of AbortSignal.timeout are over`, "TimeoutError");
      setHidden(reason, "stack", stack);
      abort(signal, reason);
    }, ms);
    return signal;
  }

  static any(signals) {
    const result = makeSignal();
    const all = [...signals];
    for (const signal of all) {
      if (!(signal instanceof AbortSignal)) {
        throw new TypeError("AbortSignal.any takes AbortSignals");
      }
    }
    const aborted = all.find((signal) => signal.#isAborted);
    if (aborted !== undefined) {
      result.#isAborted = true;
      result.#reason = aborted.#reason;
      return result;
    }
    for (const signal of all) {
      for (const source of signal.#sources.length > 0 ? signal.#sources : [signal]) {
        if (!result.#sources.includes(source)) {
          result.#sources.push(source);
          source.#depend(result);
        }
      }
    }
    return result;
  }

  #depend(result) {
    const count = this.#dependents.length;
    if (count > 8 && (count & (count - 1)) === 0) {
      this.#dependents = this.#dependents.filter((reference) => reference.deref() !== undefined);
    }
    this.#dependents.push(new WeakRef(result));
  }

  static {
    makeSignal = () => new AbortSignal(PRIVATE);
    abort = (signal, reason) => {
      if (signal.#isAborted) {
        return;
      }
      const all = [signal, ...signal.#dependents.map((reference) => reference.deref())].filter(
        (one) => one !== undefined && !one.#isAborted);
      for (const one of all) {
        one.#isAborted = true;
        one.#reason = reason;
      }
      signal.#dependents = [];
      signal.#kept.clear();
      for (const one of all) {
        one.dispatchEvent(new Event("abort"));
      }
    };
  }
}

function orAbortError(reason) {
  return reason === undefined ? new DOMException("this was aborted", "AbortError") : reason;
}

class AbortController {
  #signal = makeSignal();

  get signal() {
    return this.#signal;
  }

  abort(reason) {
    abort(this.#signal, orAbortError(reason));
  }
}

webClass(AbortSignal, "AbortSignal", ["aborted"]);
webClass(AbortController, "AbortController", ["signal"]);
return { __proto__: null, AbortSignal, AbortController };
