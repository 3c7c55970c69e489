// Short explanations of close codes (RFC 6455, 7.4, and IANA's registry).

const WORDS = {
  1000: "normal",
  1001: "going away: the server shuts down, or the user left the page",
  1002: "protocol error",
  1003: "this endpoint does not accept this kind of message",
  1005: "no code given",
  1006: "no close frame: the handshake was refused, or the connection was lost",
  1007: "invalid message, such as text that is not UTF-8",
  1008: "policy violation: refused, kicked, or over a limit",
  1009: "message too big",
  1010: "an extension was missing",
  1011: "the server’s handler failed",
  1012: "the server restarts: reconnect",
  1013: "too slow, or too busy: try again later",
  1014: "a gateway got a bad answer",
  1015: "TLS failed",
  3000: "not authorized",
  3003: "forbidden",
};

/** The meaning of a code. */
export function closeWords(code) {
  if (WORDS[code]) return WORDS[code];
  if (code >= 4000 && code <= 4999) return "the application’s own code";
  if (code >= 3000 && code <= 3999) return "a library’s code";
  return "an unknown code";
}

/** A close event as one line: code, explanation and reason. */
export function describeClose(code, reason) {
  return `${code} ${closeWords(code)}${reason ? `: “${reason}”` : ""}`;
}
