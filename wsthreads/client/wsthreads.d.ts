// Types of wsthreads.js, for a page in TypeScript or with `// @ts-check`.

/** Whether reconnecting is useless after this close code: 1000, mistakes of the client, and 4000 to 4999. */
export function isFinal(code: number): boolean;

export interface ReconnectingOptions {
  /** Milliseconds before the first attempt to reconnect. Each further delay is twice as long. Default: 1,000. */
  minDelay?: number;
  /** The longest delay. Each delay is a random value from its upper half. Default: 30,000. */
  maxDelay?: number;
  /** Milliseconds that one attempt may take. Default: 10,000. */
  connectTimeout?: number;
  /** After a connection of this many milliseconds, delays begin at `minDelay` again. Default: 5,000. */
  stableAfter?: number;
  /** The client gives up after this many attempts without a stable connection. Default: Infinity. */
  maxAttempts?: number;
  /** The most messages that wait while there is no connection. Default: 1,000. */
  maxQueued?: number;
  /** The most bytes of these messages. Default: 1 MiB. */
  maxQueuedBytes?: number;
  /**
   * True: do not offer the subprotocol `wsthreads.1`. Then no session is resumed, and there are no requests. Use this
   * option only for a server that does not know the subprotocol, if that server must not see an attempt that the
   * browser gives up. Default: false. */
  plain?: boolean;
  /**
   * If the page was suspended for this many milliseconds, for example while the device slept, an open connection counts
   * as dead and is replaced. Default: 90,000, because browsers delay timers of hidden pages by up to a minute.
   * Infinity: never.
   */
  maxPause?: number;
  /**
   * Returns true if the client must not reconnect after this close. Default: `isFinal(close.code)`. The function is
   * called between two connections, and may call `close`. If it throws, the error is reported and the default decides.
   */
  isFinal?: (close: { code: number; reason: string; wasClean: boolean }) => boolean;
  /** For tests. */
  WebSocket?: typeof WebSocket;
  /** For tests. */
  now?: () => number;
  /** For tests. */
  random?: () => number;
  /** For tests. */
  setTimeout?: (callback: () => void, delay: number) => any;
  /** For tests. */
  clearTimeout?: (timer: any) => void;
}

export interface Reconnecting {
  /** The close code. 1006 if the function for the address failed; then `reason` is its error's message. */
  code: number;
  reason: string;
  /** The number of the next attempt since the last stable connection, from 1. */
  attempt: number;
  /** Milliseconds until the next attempt. */
  delay: number;
}

/** A request of the server. */
export interface RequestEvent extends MessageEvent {
  /** Answer the request with this value or promise, like the result of `onrequest`. The first call counts. */
  respondWith(answer: Answer | Promise<Answer>): void;
}

/** The answer to a request: a message. `undefined` arrives as null. */
export type Answer = string | ArrayBufferLike | Blob | ArrayBufferView | null | undefined | void;

export interface OpenEvent extends Event {
  /**
   * How many messages may be lost: they were sent in the previous session, and the server has not acknowledged them.
   * The server may have handled them. 0 for the first session. Null if the server does not resume sessions. */
  lost: number | null;
}

/**
 * A request that the other side has refused or failed to answer, or that did not fit into the client's queue. If
 * `onrequest` throws a `RequestError`, the other side receives the error's message. */
export class RequestError extends Error {}
/** The other side has not answered in time. */
export class RequestTimeout extends Error {}
/** The session has ended before the answer. */
export class SessionClosed extends Error {}

export interface ReconnectingEventMap {
  /**
   * A new session is open: the first one, or one after a reconnect without a resume. The queue is sent afterwards.
   * Messages that a listener sends before it returns or awaits, such as a login, are sent before the queue. */
  open: OpenEvent;
  /** A connection is open, and the session was resumed: no message was lost. Comes instead of `open`. */
  resumed: Event;
  message: MessageEvent;
  request: RequestEvent;
  /** An attempt or a connection has failed. */
  error: Event;
  /** The end: the page has closed, the server has closed with a final code, or the client gives up. Comes once. */
  close: CloseEvent;
  /** The connection was lost, and another attempt follows. */
  reconnecting: CustomEvent<Reconnecting>;
}

/** An address with a token that expires. */
export interface ExpiringAddress {
  url: string | URL;
  /**
   * When the token expires: milliseconds since the epoch, as `Date.now()`, or a Date. 30 seconds earlier, the client
   * calls its address function again and opens a new connection, before it closes the old one. If the session was
   * resumed, `resumed` comes, otherwise `open`. If the token is valid for less than a minute, this happens after half
   * of that time. A time in the past is ignored. */
  expiresAt?: number | Date | null;
}

export type Address = string | URL | ExpiringAddress;

/** A WebSocket that reconnects by itself when its connection is lost. */
export class ReconnectingWebSocket extends EventTarget {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSING: 2;
  static readonly CLOSED: 3;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSING: 2;
  readonly CLOSED: 3;

  /**
   * `url` may be relative to the page, and may begin with http: or ws:. It may be a function, also an async one, that
   * is called for each connection, for example to get a fresh token. If the function fails, it is called again after a
   * delay. It may return an `ExpiringAddress`. After the close code 3000, it is called once more. If WebSocket refuses
   * an address or a subprotocol with a SyntaxError, the client does not try again. An option that is undefined has its
   * default. */
  constructor(
    url: string | URL | (() => Address | Promise<Address>),
    protocols?: string | string[],
    options?: ReconnectingOptions,
  );

  /** CONNECTING also between two connections, as soon as the server closes. CLOSED if no connection will follow. */
  readonly readyState: 0 | 1 | 2 | 3;
  /** Whether the last connection resumed the session of the previous one. */
  readonly resumed: boolean;
  readonly url: string;
  /** The subprotocol of the application. */
  readonly protocol: string;
  readonly extensions: string;
  /** Bytes that wait, in the browser and in the queue for the next connection. */
  readonly bufferedAmount: number;
  binaryType: BinaryType;

  /**
   * Returns true if the message was sent or queued, and false if the queue is full or the socket is closed. The queue
   * is sent in order, after the `open` event. Queued bytes are copied. Other values become text, as with WebSocket:
   * `undefined` is sent as "undefined".
   *
   * If the server resumes sessions, a message for which this returned true arrives once and in order, unless `close`
   * comes, or `open` with a `lost` above 0. */
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): boolean;
  /**
   * Send a request to the server's `onRequest`. Resolves with its answer: text, bytes in the form of `binaryType`, or
   * null. Rejects with a `RequestTimeout` after `timeoutMs` (default: 10,000), a `SessionClosed` if the session ends
   * before the answer, or a `RequestError`. Like a message, a request waits for a connection, and survives a lost one.
   * */
  request(
    data: string | ArrayBufferLike | Blob | ArrayBufferView, options?: { timeoutMs?: number },
  ): Promise<any>;
  /** Close the socket. It does not reconnect. Messages that wait for a connection are dropped. */
  close(code?: number, reason?: string): void;
  /** Connect now, without waiting for the delay. Does nothing while there is a connection. */
  reconnect(): void;

  onopen: ((event: OpenEvent) => any) | null;
  onresumed: ((event: Event) => any) | null;
  onmessage: ((event: MessageEvent) => any) | null;
  /**
   * Answers requests of the server: its result is the answer, or a promise of the answer. After a lost connection, the
   * function is also called for requests whose answers the server no longer needs. */
  onrequest: ((event: RequestEvent) => Answer | Promise<Answer>) | null;
  onerror: ((event: Event) => any) | null;
  onclose: ((event: CloseEvent) => any) | null;
  onreconnecting: ((event: CustomEvent<Reconnecting>) => any) | null;

  addEventListener<Type extends keyof ReconnectingEventMap>(
    type: Type, listener: (event: ReconnectingEventMap[Type]) => any, options?: boolean | AddEventListenerOptions): void;
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}
