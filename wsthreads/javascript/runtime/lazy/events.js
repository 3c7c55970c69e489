// Event, CustomEvent, EventTarget (https://dom.spec.whatwg.org/#events), AbortController and AbortSignal. There is no tree
// of targets here, so an event has one target and no phases but its own.

const { webClass, reportFailure, startTimeout, DOMException, now } = tools;

// What dispatchEvent and AbortSignal do with an event.
let dispatch, isStoppedAtOnce, mayBePassive, hasListeners;

class Event {
  #type;
  #bubbles;
  #cancelable;
  #composed;
  #target = null;
  #current = null;
  #isDispatched = false;
  #isStopped = false;
  #isStoppedAtOnce = false;
  #isCanceled = false;
  #isPassive = false;
  #isInitialized = true;
  #time = now();

  constructor(type, options = {}) {
    if (arguments.length === 0) {
      throw new TypeError("an Event has a type");
    }
    this.#type = `${type}`;
    this.#bubbles = Boolean(options?.bubbles);
    this.#cancelable = Boolean(options?.cancelable);
    this.#composed = Boolean(options?.composed);
  }

  get type() {
    return this.#type;
  }

  get target() {
    return this.#target;
  }

  get srcElement() {
    return this.#target;
  }

  get currentTarget() {
    return this.#current;
  }

  composedPath() {
    return this.#current === null ? [] : [this.#current];
  }

  get eventPhase() {
    return this.#current === null ? 0 : 2;
  }

  stopPropagation() {
    this.#isStopped = true;
  }

  get cancelBubble() {
    return this.#isStopped;
  }

  set cancelBubble(value) {
    this.#isStopped ||= Boolean(value);
  }

  stopImmediatePropagation() {
    this.#isStopped = this.#isStoppedAtOnce = true;
  }

  get bubbles() {
    return this.#bubbles;
  }

  get cancelable() {
    return this.#cancelable;
  }

  get returnValue() {
    return !this.#isCanceled;
  }

  set returnValue(value) {
    if (!value) {
      this.preventDefault();
    }
  }

  preventDefault() {
    this.#isCanceled ||= this.#cancelable && !this.#isPassive;
  }

  get defaultPrevented() {
    return this.#isCanceled;
  }

  get composed() {
    return this.#composed;
  }

  get isTrusted() {
    return false;
  }

  get timeStamp() {
    return this.#time;
  }

  initEvent(type, bubbles = false, cancelable = false) {
    if (!this.#isDispatched) {
      this.#type = `${type}`;
      this.#bubbles = Boolean(bubbles);
      this.#cancelable = Boolean(cancelable);
      this.#isStopped = this.#isStoppedAtOnce = this.#isCanceled = false;
      this.#target = null;
    }
  }

  static {
    // Calls `run(event)` with the event's target set. Returns whether the event was not canceled.
    dispatch = (event, target, run) => {
      if (typeof event !== "object" || event === null || !(#type in event)) {
        throw new TypeError("dispatchEvent takes an Event");
      }
      if (event.#isDispatched) {
        throw new DOMException("the event is being dispatched already", "InvalidStateError");
      }
      event.#isDispatched = true;
      event.#target = event.#current = target;
      if (!event.#isStopped) {
        run();
      }
      event.#isDispatched = event.#isStopped = event.#isStoppedAtOnce = false;
      event.#current = null;
      return !event.#isCanceled;
    };
    isStoppedAtOnce = (event) => event.#isStoppedAtOnce;
    mayBePassive = (event, isPassive) => {
      event.#isPassive = isPassive;
    };
  }
}

for (const [name, value] of [["NONE", 0], ["CAPTURING_PHASE", 1], ["AT_TARGET", 2], ["BUBBLING_PHASE", 3]]) {
  for (const holder of [Event, Event.prototype]) {
    Object.defineProperty(holder, name, { value, enumerable: true });
  }
}

class CustomEvent extends Event {
  #detail;

  constructor(type, options = {}) {
    super(type, options);
    this.#detail = options?.detail ?? null;
  }

  get detail() {
    return this.#detail;
  }
}

class EventTarget {
  #listeners = [];

  addEventListener(type, callback, options = {}) {
    const name = `${type}`;
    const flags = flagsOf(options);
    if (callback === null || callback === undefined || flags.signal?.aborted) {
      return;
    }
    if (typeof callback !== "function" && typeof callback !== "object") {
      throw new TypeError("a listener is a function, or an object with handleEvent");
    }
    if (this.#find(name, callback, flags.capture) >= 0) {
      return;
    }
    this.#listeners.push({ type: name, heard: callback, ...flags, isRemoved: false });
    flags.signal?.addEventListener("abort", () => this.removeEventListener(name, callback, flags.capture), { once: true });
  }

  removeEventListener(type, callback, options = {}) {
    const place = this.#find(`${type}`, callback, flagsOf(options).capture);
    if (place >= 0) {
      this.#listeners[place].isRemoved = true;
      this.#listeners.splice(place, 1);
    }
  }

  dispatchEvent(event) {
    return dispatch(event, this, () => {
      const { type } = event;
      const called = this.#listeners.filter((listener) => listener.type === type);
      for (const isCapture of [true, false]) {
        for (const listener of called) {
          if (listener.capture !== isCapture || listener.isRemoved || isStoppedAtOnce(event)) {
            continue;
          }
          if (listener.once) {
            this.removeEventListener(type, listener.heard, listener.capture);
          }
          mayBePassive(event, listener.passive);
          call(listener.heard, this, event);
          mayBePassive(event, false);
        }
      }
    });
  }

  static {
    hasListeners = (target, type) => target.#listeners.some((listener) => listener.type === type);
  }

  #find(type, callback, capture) {
    return this.#listeners.findIndex(
      (listener) => listener.type === type && listener.heard === callback && listener.capture === capture);
  }
}

function flagsOf(options) {
  if (typeof options !== "object" || options === null) {
    return { capture: Boolean(options), once: false, passive: false, signal: undefined };
  }
  const { capture, once, passive, signal } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError("the signal of a listener is an AbortSignal");
  }
  return { capture: Boolean(capture), once: Boolean(once), passive: Boolean(passive), signal };
}

// An error of one listener is reported, and the others are called.
function call(callback, target, event) {
  try {
    if (typeof callback === "function") {
      Reflect.apply(callback, target, [event]);
    } else {
      callback.handleEvent(event);
    }
  } catch (error) {
    reportFailure(`a listener of ${event.type}`, error);
  }
}

const PRIVATE = {};  // whoever has it may make an AbortSignal
let abort, makeSignal;

class AbortSignal extends EventTarget {
  #isAborted = false;
  #reason = undefined;
  // Signals of AbortSignal.any, which abort with this one. Only those with listeners are kept alive.
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
    startTimeout(() => abort(signal, new DOMException("the time is over", "TimeoutError")), ms);
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

webClass(Event, "Event", ["type", "defaultPrevented", "cancelable", "timeStamp"]);
webClass(CustomEvent, "CustomEvent", ["type", "detail", "defaultPrevented", "cancelable", "timeStamp"]);
webClass(EventTarget, "EventTarget");
webClass(AbortSignal, "AbortSignal", ["aborted"]);
webClass(AbortController, "AbortController", ["signal"]);
return { __proto__: null, Event, CustomEvent, EventTarget, AbortSignal, AbortController };
