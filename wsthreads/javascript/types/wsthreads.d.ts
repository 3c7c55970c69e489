// Types for wsthreads handlers, for editors and for tsc. `wsthreads new` and `wsthreads check --types` put this file
// beside a handler and name it in a jsconfig.json. Elsewhere begin your file with:
// /// <reference path="./wsthreads.d.ts" />
//
// In JavaScript:  /** @type {import("wsthreads").OnMessage} */
//                 export function onMessage(session, message) { … }
// In TypeScript:  import type { Session } from "wsthreads";

declare module "wsthreads" {
  /** A message to send: text, or bytes, which are sent as a binary message. */
  export type Message = string | ArrayBuffer | SharedArrayBuffer | ArrayBufferView;

  /** A message of a client: text, or the bytes of a binary message. */
  export type Received = string | ArrayBuffer;

  /** The common part of a session and a request: data of the handshake, and attributes. */
  export interface Visitor {
    /** The first value of a query parameter of the URI, decoded, or null. */
    getParameter(name: string): string | null;
    /** A header of the handshake, or null. The case of the name does not matter. */
    getHeader(name: string): string | null;
    /** The path of the URI, without the query. */
    getRequestPath(): string;
    /**
     * A parameter of a path such as `/ws/rooms/<name>`, decoded, or null. With the converters `int` and `float`, it is a
     * number, otherwise a text. A number beyond `Number.MAX_SAFE_INTEGER` is a text, too, with all of its digits.
     */
    getPathParameter(name: string): string | number | null;
    /** The client's IP address. Behind a configured proxy, the address from its headers. */
    getRemoteAddr(): string;
    /** Keep a value of any type as long as the session lasts. */
    setAttribute(key: string, value: any): void;
    /** The value of this key, or null. */
    getAttribute(key: string): any;
    /** A copy of all attributes. */
    getAttributes(): { [key: string]: any };
  }

  /** A client before the upgrade. Its attributes become those of its session. */
  export interface Request extends Visitor {
    /**
     * Set the user: text of 1 to 256 characters, or null. Call this before `onHandshake` returns, and only with a name
     * that the client has proved, for example by a cookie or a token. */
    setUser(name: string | null): void;
    /**
     * Close the session with 3000, reason "expired", at this time in seconds since the epoch, such as the `exp` of a token.
     * If the time has passed when `onHandshake` returns, the client is refused with 401. `Session.setExpiry` can change
     * it. */
    setExpiry(unixSeconds: number): void;
    /** The subprotocols that the client offers, its preferred one first. */
    getSubprotocols(): string[];
  }

  /**
   * One client, from its handshake to its end. If the setting `resume_s` is not 0 and the client speaks wsthreads.1,
   * the session survives a lost connection if the client comes back in time. */
  export interface Session extends Visitor {
    /** The id of the session: unique, and impossible to guess. */
    readonly id: string;
    /** The user that `onHandshake` has set by `request.setUser`, or null. */
    readonly user: string | null;
    /** Send to this client. Returns false, and sends nothing, if the session is closed. */
    send(message: Message, options?: SendOptions): boolean;
    /**
     * Send a request to the client, and wait for its reply: text, bytes, or null. Rejects with a `RequestTimeout` after
     * `timeoutMs` (default: the setting `request_timeout_s`), with a `SessionClosed` if the session ends before the
     * reply, with a `SessionMoved` if it moves to another process before the reply, and with a `RequestError` if the
     * client refuses the request or does not speak wsthreads.1. A client without a connection gets the request when it
     * is back, even after the `RequestTimeout`. So put an id into the request if the client must not act on an old one.
     * */
    request(message: Message, options?: RequestOptions): Promise<Received | null>;
    /** Start the close handshake. The default code is 1000. Allowed: 1000 to 1003, 1007 to 1014, 3000 to 4999. */
    close(code?: number, reason?: string): void;
    /**
     * Close the session with 3000, reason "expired", at this time in seconds since the epoch. A time in the past closes
     * the session now. A later call replaces the time. */
    setExpiry(unixSeconds: number): void;
    /** False after `close`, after the client's close, and in `onClose`. True while the session waits for its client. */
    isOpen(): boolean;
    /** Whether there is a connection, as far as the server knows. False while the session waits for its client. */
    isConnected(): boolean;
    /** A handle on a room of this endpoint. The session does not join the room by this. You may keep the handle. */
    room(name: string): SessionRoom;
    /** The names of the rooms that this session is in, sorted. */
    rooms(): string[];
  }

  export interface RequestOptions {
    /** How long to wait for the reply, in milliseconds. */
    timeoutMs?: number | null;
  }

  /**
   * A request got no answer: the other side refused it, or it could not be sent. To refuse a request of a client, throw
   * a `RequestError` in `onRequest`: the client receives the error's message. After any other error, the client learns
   * only that the request failed. */
  export class RequestError extends Error {}
  /** A request was not answered in time. The client may have handled it, or may still do so. */
  export class RequestTimeout extends Error {}
  /** The session of a request has ended. The client may have handled the request. */
  export class SessionClosed extends Error {}
  /**
   * The session of a request has moved to another process, so this process gets no reply. The session is still open.
   * The client may have handled the request, or may still do so. Send the request again in `onResume`. */
  export class SessionMoved extends Error {}

  export interface SendOptions {
    /**
     * A key of 1 to 256 characters. The message replaces a message with the same key that still waits for a slow
     * client. A client that keeps up receives all of them. Each session, each user and each room has its own keys. */
    latest?: string | null;
  }

  export interface BroadcastOptions extends SendOptions {
    /** False: the room's history does not store the message. */
    keep?: boolean | null;
  }

  export interface JoinOptions {
    /** Also call `setPresence`. If the value is not valid, the session does not join. */
    presence?: any;
    /** First send this many of the room's last messages. The history must be on: see `history_messages`. */
    history?: number | null;
    /** First send all broadcasts after this position. If `complete` is false, `history` counts instead. */
    since?: string | null;
    /** Join only if the room has fewer members than this, 1 to 1,000,000. The limit is exact over all processes. */
    maxMembers?: number | null;
  }

  /** The result of `SessionRoom.join`. */
  export interface Joined {
    /** Whether the session is a member now. False if the room is full, or if the session has ended. */
    joined: boolean;
    /** Whether no message after `since` is missing. True without `since`; false if the session did not join. */
    complete: boolean;
  }

  /**
   * A handle on a room. You may keep a handle: it belongs to no session, and does not keep the room alive.
   *
   * Attributes are JSON values that all processes share, together at most 64 KiB in a room. They live while the room has
   * members, and a minute longer. A key has 1 to 256 characters.
   */
  export interface Room {
    /** Send to all members. */
    broadcast(message: Message, options?: BroadcastOptions): void;
    /** The number of members. */
    members(): number;
    /** The persons in the room, in order of arrival: those of sessions that have set a presence value. */
    presence(): Person[];
    /** Close all members, like `Session.close`. */
    close(code?: number, reason?: string): void;
    /** The name of the room. */
    getName(): string;
    /** The last messages of the room, at most `count`, the oldest first. The history must be on. */
    history(count: number): Received[];
    /** The current position in the history, for the option `since` of `join`. The history must be on. */
    position(): string;
    /** Set an attribute of the room. Throws while Redis is unavailable. */
    setAttribute(key: string, value: any): void;
    /** A copy of an attribute, or null. */
    getAttribute(key: string): any;
    /** A copy of all attributes. */
    getAttributes(): { [key: string]: any };
    /**
     * Replace the value of an attribute by `change(value)`, as one step. `change` gets undefined if there is no value.
     * It may be called more than once, so it must have no other effects, and must not be async. Returns the new value.
     * */
    updateAttribute<Value = any>(key: string, change: (value: any) => Value): Value;
    /** Remove an attribute. Returns false if there was none. */
    deleteAttribute(key: string): boolean;
    /**
     * Call `onPost` with this value, any JSON value of at most 64 KiB, in the process that owns the room. The promise
     * settles when `onPost` has ended, even if `onPost` throws. It rejects with an `Error` named "PostError" if the
     * post was not handled, for example because the room has no members, and with a `TypeError` for a value that is not
     * JSON. If the error's `isUnknown` is true, the post may have been handled.
     *
     * `onPost` and the other functions for rooms receive a handle on the room. The promise of this handle's `post`
     * fulfils as soon as the value is queued. The owner handles the value after the function that called `post` has
     * ended. In these functions, do not wait for promises of other handles on the same room. */
    post(value: any): Promise<void>;
  }

  /**
   * The room that this process owns, for `onTick`, `onPost`, `onRoomStart` and `onRoomEnd`. You may keep it. When the
   * ownership is over, attributes can no longer be written through it.
   */
  export interface OwnedRoom extends Room {
    /** A number that is higher for each later ownership of the room. */
    readonly fencingNumber: number;
    /** Whether this process still owns the room. */
    isOwner(): boolean;
  }

  /** The session that has posted a value to a room. */
  export interface Sender {
    /** The id of the session. */
    id: string;
    user: string | null;
  }

  /**
   * A session's handle on a room. You may keep it. After the end of the session, `join`, `leave` and `setPresence` do
   * nothing, and the log says so once. All other methods still work. */
  export interface SessionRoom extends Room {
    /** Join the room. Does nothing if the session is a member already. The first member creates the room. */
    join(options?: JoinOptions): Joined;
    /** Leave the room. When the last member leaves, the room is deleted. A session leaves all rooms at its end. */
    leave(): void;
    /** Send to all members except this session. */
    broadcastExcept(message: Message, options?: BroadcastOptions): void;
    /** Set the presence of this session: any JSON value of at most 1 KiB. Throws if the session is not a member. */
    setPresence(value: any): void;
  }

  /** A person in a room: a user with all of the user's sessions there, or one session without a user. */
  export interface Person {
    /** The user, or the id of the session. */
    key: string;
    /** Null for a session without a user. */
    user: string | null;
    /** The value that was set last by one of the sessions. */
    presence: any;
    /** When the person came, in milliseconds since the epoch, as `Date.now()`. */
    since: number;
    /** The number of sessions. 0 while all connections of the person are lost. */
    sessions: number;
  }

  /** The changes in a room since the last call of `onPresence`. Each list is in order of arrival. */
  export interface PresenceChanges {
    joined: Person[];
    /** Persons who have left, with their last value. */
    left: Person[];
    /** Persons whose value has changed. */
    changed: Person[];
  }

  /** A handle on a user: all sessions of this endpoint that have this user, on all devices. You may keep it. */
  export interface User {
    readonly name: string;
    /** Send to all sessions of the user, in order with other sends and broadcasts. Does nothing without a session. */
    send(message: Message, options?: SendOptions): void;
    /**
     * Close all sessions of the user, like `Session.close`. With `banS`, refuse new handshakes of the user with 403 for
     * that many seconds, at most a year. A client that connects at the same time does not slip through. */
    close(code?: number, reason?: string, options?: { banS?: number }): void;
    /** Whether the user has an open session. */
    isOnline(): boolean;
    /** The user's open sessions, the oldest first. */
    sessions(): UserSession[];
  }

  /** One of a user's sessions. */
  export interface UserSession {
    id: string;
    /** When the session began, in milliseconds since the epoch, as `Date.now()`. */
    since: number;
  }

  /** A handle on one session by its id. You may keep it: it does nothing once the session has ended. */
  export interface Peer {
    readonly id: string;
    /** Send to the session. Returns false if the session certainly gets nothing. */
    send(message: Message, options?: SendOptions): boolean;
    /** Close the session, like `Session.close`. Does nothing if it has ended. */
    close(code?: number, reason?: string): void;
    /** Whether there is such a session, and it is open. */
    isOpen(): boolean;
  }

  /** A handle on a room of this endpoint, without a session: for timers, or for rooms that the session is not in. */
  export function room(name: string): Room;
  /** A handle on a user of this endpoint, whether the user is online or not. */
  export function user(name: string): User;
  /** A handle on a session of this endpoint, by its `id`. */
  export function session(id: string): Peer;
  /**
   * The sessions of this process, the oldest first: the same objects that handlers receive. A session whose `onClose`
   * was called is not included. */
  export function sessions(): Session[];

  /**
   * Names and values for scripts, from `--env-file` or from `env=` in Python. The console does not show the values. */
  export const env: { readonly [name: string]: string | undefined };

  /**
   * The result of `onHandshake`. Nothing or true accepts the client. A text accepts the client, and is the subprotocol
   * to speak. False refuses the client with the HTTP status 403. A number from 400 to 599 refuses the client with that
   * status. A `Refusal` refuses the client with a close code. */
  export type Verdict = void | undefined | null | boolean | number | string | Refusal;

  /**
   * Refuses a client with a close code that its page can read: the client is accepted and closed at once. No other
   * function is called for the client. (If you refuse a client with an HTTP status instead, the browser hides the
   * status: the page sees 1006, as for a lost connection.) */
  export interface Refusal {
    /** Use 4000 to 4999 for your own codes. See `Session.close` for other allowed codes. */
    close: number;
    /** At most 123 bytes in UTF-8. */
    reason?: string;
  }

  /** Called before the upgrade. Decides whether to accept the client. */
  export type OnHandshake = (request: Request) => Verdict | Promise<Verdict>;
  /** Called first. Messages wait until this function has ended. If it throws, the session ends with 1011. */
  export type OnOpen = (session: Session) => any;
  /** Called for one message at a time, in order. */
  export type OnMessage = (session: Session, message: Received) => any;
  /**
   * Called for one request at a time, in order with the messages. Its result is the reply; without a result, the client
   * gets null. If it throws a `RequestError`, the client gets the error's message. Only clients that speak wsthreads.1
   * send requests. */
  export type OnRequest = (session: Session, message: Received) => Answer | Promise<Answer>;
  /** The result of `onRequest`: the reply, or nothing. */
  export type Answer = Message | void | undefined | null;
  /**
   * Called when the connection is lost and the session waits for its client, at most `resume_s`. The session is open:
   * messages to it arrive when the client is back. With Redis, the session can move to another process. Return the
   * attributes that the session shall have there, as JSON values. Without a result, all attributes move with the
   * session, and all must be JSON values. */
  export type OnSuspend = (session: Session) => Attributes | Promise<Attributes>;
  /** The result of `onSuspend`: attributes for another process, or nothing. */
  export type Attributes = { [key: string]: any } | void | undefined | null;
  /** Called when the client is back, before its messages. The session has the new connection's handshake data. */
  export type OnResume = (session: Session) => any;
  /**
   * Called last, exactly once, for every kind of end. The code of a lost connection is 1006. The session is closed, but
   * still a member of its rooms. It leaves them when the function has returned. */
  export type OnClose = (session: Session, code: number, reason: string) => any;
  /** Called after another function has thrown. The error was logged already. */
  export type OnError = (session: Session, error: any) => any;
  /**
   * Called for each room with members in this process when the presence in the room has changed, at most once every 0.2
   * seconds. The members in this process receive the result. An error is logged, and not passed to `onError`. */
  export type OnPresence = (room: Room, changes: PresenceChanges) => PresenceMessage | Promise<PresenceMessage>;
  /** The result of `onPresence`: a message to the members, or nothing. */
  export type PresenceMessage = Message | void | undefined | null;
  /**
   * Called for each room that this process owns, `tickRate` times a second. `dt` is the time in seconds since the room's
   * last tick, at most 0.25 or one period, whichever is longer. Late ticks are skipped. While a promise of the room is
   * pending, its ticks are skipped, too.
   */
  export type OnTick = (room: OwnedRoom, dt: number) => any;
  /** `export const tickRate: TickRate = 20;` How often `onTick` is called in a second, 1 to 60. */
  export type TickRate = number;
  /** Called for each value that was posted to a room, in order. `from` is null for a post without a session. */
  export type OnPost = (room: OwnedRoom, value: any, from: Sender | null) => any;
  /**
   * Called when this process becomes the owner of a room, before every other call for the room. This is when the first
   * member of the room has joined, or when the previous owner has ended. One process owns a room at a time. Calls for
   * one room never overlap. */
  export type OnRoomStart = (room: OwnedRoom) => any;
  /**
   * Called when this process no longer owns a room, after every other call for the room. This is when the last member
   * in this process has left, or when the ownership was lost (see `isOwner`). */
  export type OnRoomEnd = (room: OwnedRoom) => any;
  /**
   * Called once after the script was loaded again, before any other function of the new version. The sessions are still
   * there, but the script's variables are new: rebuild the variables from `sessions()`. An error is logged, and not
   * passed to `onError`.
   */
  export type OnReload = () => any;
}

/**
 * Writes to the server's log, under the script's name. Shows values as Node does, and errors with their stack. If the
 * first value is a text, it may contain %s, %d, %i, %f, %j, %o, %O, %c and %%. */
interface Console {
  debug(...values: any[]): void;
  log(...values: any[]): void;
  info(...values: any[]): void;
  warn(...values: any[]): void;
  error(...values: any[]): void;
  /** Write the values at level error, after "Assertion failed", if the first one is false. */
  assert(isTrue?: any, ...values: any[]): void;
  /** Write the values with the stack of the call. */
  trace(...values: any[]): void;
  /** Write one value, with `depth` levels of inner objects: 2 by default, null for all. */
  dir(value?: any, options?: { depth?: number | null }): void;
  dirxml(...values: any[]): void;
  /** Write an array of objects as a table, or a Map or Set. `columns` names the properties to show. */
  table(data?: any, columns?: string[]): void;
  /** Write how many times this was called with the label. */
  count(label?: string): void;
  countReset(label?: string): void;
  /** Begin to measure a time. `timeLog` writes the time so far; `timeEnd` also ends the measurement. */
  time(label?: string): void;
  timeLog(label?: string, ...values: any[]): void;
  timeEnd(label?: string): void;
  /** Indent all lines until `groupEnd`. The values are the heading. */
  group(...values: any[]): void;
  groupCollapsed(...values: any[]): void;
  groupEnd(): void;
  /** Does nothing: a log has no screen. */
  clear(): void;
}

declare var console: Console;

/**
 * Call a function once, after `delay` milliseconds. A reload stops timers that the script's top level has set, and
 * those that their callbacks have set. A timer that was set in a call for a session, such as `onOpen`, continues. */
declare function setTimeout<Values extends any[]>(
  callback: (...values: Values) => void, delay?: number, ...values: Values): number;
/**
 * Call a function every `delay` milliseconds. For reloads, see `setTimeout`. Set a timer for all sessions at the top
 * level: after a reload, a timer from the first `onOpen` would run in addition to the new version's timer. */
declare function setInterval<Values extends any[]>(
  callback: (...values: Values) => void, delay?: number, ...values: Values): number;
/** Stop a timer. Any other value is ignored. */
declare function clearTimeout(timer: number | null | undefined): void;
/** Stop a timer. Any other value is ignored. */
declare function clearInterval(timer: number | null | undefined): void;
/** Call a function right after the current call, before anything else. */
declare function queueMicrotask(callback: () => void): void;

// The globals of the web that scripts have. (Leave "dom" out of the option `lib` of your tsconfig.json or
// jsconfig.json: otherwise they would be declared twice.)

/** A time in milliseconds that does not depend on changes of the clock. */
declare var performance: { now(): number; readonly timeOrigin: number; toJSON(): any };

/** Decode base64 to a text of characters up to U+00FF. */
declare function atob(data: string): string;
/** Encode a text of characters up to U+00FF in base64. */
declare function btoa(data: string): string;
/** A deep copy, also of Maps, Sets, Dates, buffers, errors and cycles. */
declare function structuredClone<T = any>(value: T, options?: { transfer?: ArrayBuffer[] }): T;

/** Converts text to UTF-8. */
interface TextEncoder {
  readonly encoding: string;
  encode(text?: string): Uint8Array;
  encodeInto(text: string, bytes: Uint8Array): { read: number; written: number };
}
declare var TextEncoder: { prototype: TextEncoder; new (): TextEncoder };

/** Converts bytes to text: from UTF-8, UTF-16 and the other encodings of the web. */
interface TextDecoder {
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: ArrayBuffer | SharedArrayBuffer | ArrayBufferView, options?: { stream?: boolean }): string;
}
declare var TextDecoder: {
  prototype: TextDecoder;
  new (label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean }): TextDecoder;
};

interface DOMException extends Error {
  readonly code: number;
}
declare var DOMException: { prototype: DOMException; new (message?: string, name?: string): DOMException };

interface Event {
  readonly type: string;
  readonly target: EventTarget | null;
  readonly srcElement: EventTarget | null;
  readonly currentTarget: EventTarget | null;
  readonly eventPhase: number;
  readonly bubbles: boolean;
  readonly cancelable: boolean;
  readonly composed: boolean;
  readonly defaultPrevented: boolean;
  readonly isTrusted: boolean;
  readonly timeStamp: number;
  cancelBubble: boolean;
  returnValue: boolean;
  composedPath(): EventTarget[];
  preventDefault(): void;
  stopPropagation(): void;
  stopImmediatePropagation(): void;
  initEvent(type: string, bubbles?: boolean, cancelable?: boolean): void;
  readonly NONE: number;
  readonly CAPTURING_PHASE: number;
  readonly AT_TARGET: number;
  readonly BUBBLING_PHASE: number;
}
interface EventOptions {
  bubbles?: boolean;
  cancelable?: boolean;
  composed?: boolean;
}
declare var Event: { prototype: Event; new (type: string, options?: EventOptions): Event };

interface CustomEvent<T = any> extends Event {
  readonly detail: T;
}
declare var CustomEvent: {
  prototype: CustomEvent;
  new <T = any>(type: string, options?: EventOptions & { detail?: T }): CustomEvent<T>;
};

type EventListener = ((event: any) => any) | { handleEvent(event: any): any } | null;

/** A target for events. An error of a listener is logged, and the other listeners are called. */
interface EventTarget {
  addEventListener(type: string, listener: EventListener, options?: boolean | {
    capture?: boolean; once?: boolean; passive?: boolean; signal?: AbortSignal }): void;
  removeEventListener(type: string, listener: EventListener, options?: boolean | { capture?: boolean }): void;
  dispatchEvent(event: Event): boolean;
}
declare var EventTarget: { prototype: EventTarget; new (): EventTarget };

interface AbortSignal extends EventTarget {
  readonly aborted: boolean;
  readonly reason: any;
  onabort: ((event: Event) => any) | null;
  throwIfAborted(): void;
}
declare var AbortSignal: {
  prototype: AbortSignal;
  abort(reason?: any): AbortSignal;
  /** A signal that aborts after this many milliseconds. */
  timeout(milliseconds: number): AbortSignal;
  /** A signal that aborts when the first of these aborts. */
  any(signals: AbortSignal[]): AbortSignal;
};

interface AbortController {
  readonly signal: AbortSignal;
  abort(reason?: any): void;
}
declare var AbortController: { prototype: AbortController; new (): AbortController };

type BytesOf = ArrayBuffer | SharedArrayBuffer | ArrayBufferView;
/** "SHA-1", "SHA-256", "SHA-384" or "SHA-512". */
type HashName = string;
/** `name` is "HMAC". */
type HmacKind = { name: string; hash: HashName | { name: HashName }; length?: number };

/** A key for HMAC. Its bytes are visible only through `crypto.subtle.exportKey`. */
interface CryptoKey {
  readonly type: string;
  readonly extractable: boolean;
  readonly algorithm: any;
  readonly usages: string[];
}
declare var CryptoKey: { prototype: CryptoKey };

/** Digests and HMAC. Anything else is rejected with a NotSupportedError. */
interface SubtleCrypto {
  digest(algorithm: HashName | { name: HashName }, data: BytesOf): Promise<ArrayBuffer>;
  generateKey(algorithm: HmacKind, extractable: boolean, usages: string[]): Promise<CryptoKey>;
  importKey(format: "raw" | "jwk", key: any, algorithm: HmacKind, extractable: boolean, usages: string[]): Promise<CryptoKey>;
  exportKey(format: "raw" | "jwk", key: CryptoKey): Promise<any>;
  sign(algorithm: string | { name: string }, key: CryptoKey, data: BytesOf): Promise<ArrayBuffer>;
  verify(algorithm: string | { name: string }, key: CryptoKey, signature: BytesOf, data: BytesOf): Promise<boolean>;
  /** @deprecated Scripts do not have it: it rejects with a NotSupportedError. */
  encrypt(...values: any[]): Promise<never>;
  /** @deprecated Scripts do not have it: it rejects with a NotSupportedError. */
  decrypt(...values: any[]): Promise<never>;
  /** @deprecated Scripts do not have it: it rejects with a NotSupportedError. */
  deriveBits(...values: any[]): Promise<never>;
  /** @deprecated Scripts do not have it: it rejects with a NotSupportedError. */
  deriveKey(...values: any[]): Promise<never>;
  /** @deprecated Scripts do not have it: it rejects with a NotSupportedError. */
  wrapKey(...values: any[]): Promise<never>;
  /** @deprecated Scripts do not have it: it rejects with a NotSupportedError. */
  unwrapKey(...values: any[]): Promise<never>;
}
declare var SubtleCrypto: { prototype: SubtleCrypto };

interface Crypto {
  /** Fill a typed array of whole numbers with random bytes, and return it. At most 65,536 bytes. */
  getRandomValues<T>(array: T): T;
  /** A random id such as "3b241101-e2bb-4255-8caf-4136c566a962". */
  randomUUID(): string;
  readonly subtle: SubtleCrypto;
}
declare var Crypto: { prototype: Crypto };
declare var crypto: Crypto;

/** An address, as defined by https://url.spec.whatwg.org. Assign to a part to change it. */
interface URL {
  href: string;
  readonly origin: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  readonly searchParams: URLSearchParams;
  hash: string;
  toString(): string;
  toJSON(): string;
}
declare var URL: {
  prototype: URL;
  /** Throws a TypeError for an invalid address. */
  new (url: string | URL, base?: string | URL): URL;
  canParse(url: string | URL, base?: string | URL): boolean;
  /** Like `new URL`, but returns null for an invalid address. */
  parse(url: string | URL, base?: string | URL): URL | null;
};

/** The parameters of an address, in the order of the address. */
interface URLSearchParams {
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  toString(): string;
  forEach(callback: (value: string, name: string, parameters: URLSearchParams) => void): void;
  entries(): any;
  keys(): any;
  values(): any;
}
declare var URLSearchParams: {
  prototype: URLSearchParams;
  new (from?: string | string[][] | { [name: string]: string } | URLSearchParams): URLSearchParams;
};

type HeadersInit = Headers | string[][] | { [name: string]: string };
/** A text, bytes, or parameters of a form. There is no FormData and no Blob. */
type BodyInit = string | ArrayBuffer | ArrayBufferView | URLSearchParams | BodyStream;

/** Names and values of HTTP headers. Names are in lower case. */
interface Headers {
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  getSetCookie(): string[];
  has(name: string): boolean;
  set(name: string, value: string): void;
  forEach(callback: (value: string, name: string, headers: Headers) => void): void;
  entries(): any;
  keys(): any;
  values(): any;
}
declare var Headers: { prototype: Headers; new (from?: HeadersInit): Headers };

/** The bytes of a body as they arrive: `for await (const chunk of response.body)`. */
interface BodyStream extends AsyncIterable<Uint8Array> {
  readonly locked: boolean;
  cancel(): Promise<void>;
  getReader(): {
    read(): Promise<{ done: boolean; value: Uint8Array | undefined }>;
    cancel(): Promise<void>;
    releaseLock(): void;
  };
  values(options?: { preventCancel?: boolean }): any;
}

interface Body {
  readonly body: BodyStream | null;
  readonly bodyUsed: boolean;
  arrayBuffer(): Promise<ArrayBuffer>;
  bytes(): Promise<Uint8Array>;
  json(): Promise<any>;
  text(): Promise<string>;
}

interface RequestInit {
  method?: string;
  headers?: HeadersInit;
  body?: BodyInit | null;
  redirect?: "follow" | "error" | "manual";
  signal?: AbortSignal | null;
}

interface Request extends Body {
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
  readonly redirect: "follow" | "error" | "manual";
  readonly signal: AbortSignal;
  clone(): Request;
}
declare var Request: { prototype: Request; new (input: string | URL | Request, init?: RequestInit): Request };

interface ResponseInit {
  status?: number;
  statusText?: string;
  headers?: HeadersInit;
}

interface Response extends Body {
  readonly ok: boolean;
  readonly status: number;
  readonly statusText: string;
  readonly headers: Headers;
  /** The address after all redirects. */
  readonly url: string;
  readonly redirected: boolean;
  readonly type: "basic" | "default" | "error";
  clone(): Response;
}
declare var Response: {
  prototype: Response;
  new (body?: BodyInit | null, init?: ResponseInit): Response;
  error(): Response;
  json(data: any, init?: ResponseInit): Response;
  redirect(url: string | URL, status?: number): Response;
};

/**
 * Call an HTTP service. A script reaches only hosts that `--allow-net` names. Rejects with a TypeError if the connection
 * fails, and with a TimeoutError after `script_wait_s`. */
declare function fetch(input: string | URL | Request, init?: RequestInit): Promise<Response>;
