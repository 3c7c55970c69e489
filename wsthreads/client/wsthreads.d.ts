// Types of wsthreads.js, for a page in TypeScript or with `// @ts-check`.

/** Whether a close code means that there is no use in coming back: 1000, the client's mistakes, and 4000 to 4999. */
export function isFinal(code: number): boolean;

export interface ReconnectingOptions {
  /** Milliseconds before the first attempt to come back; doubled for each that follows. 1000. */
  minDelay?: number;
  /** The longest of these. Each delay is spread over its upper half. 30,000. */
  maxDelay?: number;
  /** Milliseconds that one attempt may take. 10,000. */
  connectTimeout?: number;
  /** A connection that has lasted so many milliseconds starts the delays anew. 5,000. */
  stableAfter?: number;
  /** Attempts without a stable connection, after which it gives up. Infinity. */
  maxAttempts?: number;
  /** Messages that wait at most while there is no connection. 1,000. */
  maxQueued?: number;
  /** Their bytes at most. 1 MiB. */
  maxQueuedBytes?: number;
  /**
   * Milliseconds that the page may stand still, as while the device sleeps, before an open connection is taken for dead
   * and replaced. 90,000: browsers let the timers of a hidden page wait for a minute. Infinity never does.
   */
  maxPause?: number;
  /**
   * Whether it shall not come back after this close; by default the function `isFinal` of the code. It is called between
   * two connections, and may call `close`. If it throws, the error is reported, and the default decides.
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
  /** How the connection was lost. If the function for the address failed: 1006, and its error's message. */
  code: number;
  reason: string;
  /** The number of the attempt that follows, from 1, since a connection was stable. */
  attempt: number;
  /** Milliseconds until then. */
  delay: number;
}

export interface ReconnectingEventMap {
  /**
   * There is a connection, the first one or another. The queue is sent afterwards: what a listener sends before it
   * returns or awaits, such as a login, goes before all that was queued.
   */
  open: Event;
  message: MessageEvent;
  /** An attempt has failed, or a connection. */
  error: Event;
  /** It is over: closed by this page, or by the server with a final code, or given up. Comes once. */
  close: CloseEvent;
  /** The connection was lost, and another attempt will be made. */
  reconnecting: CustomEvent<Reconnecting>;
}

/** A WebSocket that comes back by itself when its connection is lost. */
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
   * `url` may be relative to the page, and begin with http: as well as with ws:. A function is called for each
   * connection, as for a token that expires; it may be async. If it fails, whatever it throws, it is called again after
   * a delay. An address or a subprotocol that WebSocket refuses with a SyntaxError is final. An option that is undefined
   * has its default.
   */
  constructor(
    url: string | URL | (() => string | URL | Promise<string | URL>),
    protocols?: string | string[],
    options?: ReconnectingOptions,
  );

  /** CONNECTING also between connections, from when the other side closes; CLOSED when no further one will be made. */
  readonly readyState: 0 | 1 | 2 | 3;
  readonly url: string;
  readonly protocol: string;
  readonly extensions: string;
  /** Bytes that wait: in the browser, and in the queue while there is no connection. */
  readonly bufferedAmount: number;
  binaryType: BinaryType;

  /**
   * True if the message was sent or queued; false, and nothing happens, if the queue is full or all is over. The queue is
   * sent in its order, after the `open` event. Bytes that are queued are copied. Anything else is made a text, as by WebSocket: `undefined` is "undefined".
   */
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): boolean;
  /** Close for good. What is queued is not sent any more. */
  close(code?: number, reason?: string): void;
  /** Try now, without waiting any longer; nothing happens while there is a connection. */
  reconnect(): void;

  onopen: ((event: Event) => any) | null;
  onmessage: ((event: MessageEvent) => any) | null;
  onerror: ((event: Event) => any) | null;
  onclose: ((event: CloseEvent) => any) | null;
  onreconnecting: ((event: CustomEvent<Reconnecting>) => any) | null;

  addEventListener<Type extends keyof ReconnectingEventMap>(
    type: Type, listener: (event: ReconnectingEventMap[Type]) => any, options?: boolean | AddEventListenerOptions): void;
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}
