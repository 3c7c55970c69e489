// Types of what a wsthreads handler sees, for editors and for tsc. `wsthreads new` puts this file beside a handler and
// names it in a jsconfig.json; elsewhere a first line does: /// <reference path="./wsthreads.d.ts" />
//
// In JavaScript:  /** @type {import("wsthreads").OnMessage} */
//                 export function onMessage(session, message) { … }
// In TypeScript:  import type { Session } from "wsthreads";

declare module "wsthreads" {
  /** What a session or room can send: text, or bytes, which go as a binary message. */
  export type Message = string | ArrayBuffer | SharedArrayBuffer | ArrayBufferView;

  /** What a client's message is: text, or the bytes of a binary message. */
  export type Received = string | ArrayBuffer;

  /** What a handshake told of a client. */
  export interface Visitor {
    /** The first value of a query parameter of the URI, decoded, or null. */
    getParameter(name: string): string | null;
    /** A header of the handshake, whatever the case of its name, or null. */
    getHeader(name: string): string | null;
    /** The path of the URI, without the query. */
    getRequestPath(): string;
    /** The client's IP address; behind a configured proxy, the one that the proxy names. */
    getRemoteAddr(): string;
    /** Remember a value, any at all, for as long as the session lasts. */
    setAttribute(key: string, value: any): void;
    /** What was set under that key, or null. */
    getAttribute(key: string): any;
    /** A copy of all attributes. */
    getAttributes(): { [key: string]: any };
  }

  /** A client that asks to be let in. Its attributes become those of its session. */
  export interface Request extends Visitor {
    /** The subprotocols that the client offers, the one it prefers first. */
    getSubprotocols(): string[];
  }

  /** One client, from its handshake to the end of its connection. */
  export interface Session extends Visitor {
    /** Unique and unguessable. */
    readonly id: string;
    /** Send to this client. False, and nothing happens, if the session is closed. */
    send(message: Message): boolean;
    /** Start the close handshake: 1000 unless a code is given, which is 1000 to 1003, 1007 to 1014 or 3000 to 4999. */
    close(code?: number, reason?: string): void;
    /** False from `close` on, from the client's close on, and in `onClose`. */
    isOpen(): boolean;
    /** A handle on a room of this endpoint. It does not join. You may keep it: see `Room`. */
    room(name: string): Room;
    /** The names of the rooms that this session is in, sorted. */
    rooms(): string[];
  }

  /**
   * A session's handle on a room. It works for as long as the script runs: after the end of the session, `broadcast`,
   * `broadcastExcept`, `members` and `getName` reach the room as before, `join` and `leave` do nothing.
   */
  export interface Room {
    /** Become a member; nothing happens if the session is one, or has ended. The first member makes the room. */
    join(): void;
    /** Be no member any more. The last one to leave ends the room; who is gone leaves all rooms by itself. */
    leave(): void;
    /** Send to all members, this session included if it is one. */
    broadcast(message: Message): void;
    /** Send to all members but this session. */
    broadcastExcept(message: Message): void;
    /** How many members there are. */
    members(): number;
    /** The name of the room. */
    getName(): string;
  }

  /**
   * What `onHandshake` makes of a client: nothing or true lets it in, a text lets it in and is the subprotocol to speak;
   * false refuses it with 403, a number from 400 to 599 with that HTTP status, a `Refusal` with a close code.
   */
  export type Verdict = void | undefined | null | boolean | number | string | Refusal;

  /**
   * Refuses a client so that its page learns why: it is let in, and closed at once. (A browser hides an HTTP status: its
   * page sees 1006, as for a lost connection.) No other function is called for it.
   */
  export interface Refusal {
    /** 4000 to 4999 for your own, or any other that `Session.close` takes. */
    close: number;
    /** At most 123 bytes in UTF-8. */
    reason?: string;
  }

  /** Before the client is let in. */
  export type OnHandshake = (request: Request) => Verdict | Promise<Verdict>;
  /** First. It returns, or its promise settles, before any message; if it throws, the session is closed with 1011. */
  export type OnOpen = (session: Session) => void | Promise<void>;
  /** One message at a time, in order. */
  export type OnMessage = (session: Session, message: Received) => void | Promise<void>;
  /**
   * Last, exactly once, however the session ended: 1006 for a lost connection. It is not open any more, but still a
   * member of its rooms, which it leaves by itself afterwards.
   */
  export type OnClose = (session: Session, code: number, reason: string) => void | Promise<void>;
  /** After one of the other functions has thrown, and the error was logged. */
  export type OnError = (session: Session, error: any) => void | Promise<void>;
}

/** Writes to the server's log, under the script's name. Objects are shown as in Node, errors with their stack. */
interface Console {
  debug(...values: any[]): void;
  log(...values: any[]): void;
  info(...values: any[]): void;
  warn(...values: any[]): void;
  error(...values: any[]): void;
}

declare var console: Console;

/**
 * Call a function once, in `delay` milliseconds. A reload ends the timers that the script's top level set, and those that
 * their callbacks set; the new version sets its own. A timer that was set in a session's call, as in `onOpen`, runs on.
 */
declare function setTimeout<Values extends any[]>(
  callback: (...values: Values) => void, delay?: number, ...values: Values): number;
/**
 * Call a function every `delay` milliseconds. A reload ends it as it ends `setTimeout`. Set a timer that all sessions
 * share at the top level: one that the first `onOpen` sets would run beside the one that the new version sets.
 */
declare function setInterval<Values extends any[]>(
  callback: (...values: Values) => void, delay?: number, ...values: Values): number;
/** End a timer; what is none is ignored. */
declare function clearTimeout(timer: number | null | undefined): void;
/** End a timer; what is none is ignored. */
declare function clearInterval(timer: number | null | undefined): void;
/** Call a function as soon as the present call is over, before anything else happens. */
declare function queueMicrotask(callback: () => void): void;
