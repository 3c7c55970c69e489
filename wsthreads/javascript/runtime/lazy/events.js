// Event, CustomEvent, EventTarget (https://dom.spec.whatwg.org/#events). There is no tree of targets here, so an event
// has one target, and only the phase AT_TARGET.

const { webClass, reportFailure, DOMException, now, part } = tools;

// The inner functions for EventTarget and AbortSignal.
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
  if (signal !== undefined && !(signal instanceof part("aborting").AbortSignal)) {
    throw new TypeError("the signal of a listener is an AbortSignal");
  }
  return { capture: Boolean(capture), once: Boolean(once), passive: Boolean(passive), signal };
}

// An error of one listener is reported, and the others are still called.
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

webClass(Event, "Event", ["type", "defaultPrevented", "cancelable", "timeStamp"]);
webClass(CustomEvent, "CustomEvent", ["type", "detail", "defaultPrevented", "cancelable", "timeStamp"]);
webClass(EventTarget, "EventTarget");
return { __proto__: null, Event, CustomEvent, EventTarget, hasListeners };
