// The token that the server can require: where the page reads it from and where it keeps it.

const KEY = "wsthreads-token";

let inMemory = null; // used if the browser forbids storage

export function readToken() {
  try {
    return sessionStorage.getItem(KEY) ?? inMemory;
  } catch {
    return inMemory;
  }
}

/** Keep the token as long as this window; null removes it. */
export function keepToken(token) {
  inMemory = token;
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // the browser forbids storage: the token lasts until the page is closed
  }
}

/** Move the token out of the address, /_wsthreads/#token=…, so that no history, bookmark or screenshot contains it. */
export function takeFromAddress() {
  const url = new URL(location.href);
  const inFragment = new URLSearchParams(url.hash.slice(1)).get("token");
  const token = inFragment ?? url.searchParams.get("token"); // also accepts ?token=
  if (token === null) return;
  keepToken(token);
  url.searchParams.delete("token");
  if (inFragment !== null) url.hash = "";
  history.replaceState(history.state, "", url);
}

/** The subprotocols to offer. A browser's WebSocket has no other place for a secret that access logs do not contain. */
export function subprotocols() {
  const token = readToken();
  if (token === null) return ["wsthreads.live"];
  const binary = String.fromCharCode(...new TextEncoder().encode(token));
  return ["wsthreads.live", `token.${btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "")}`];
}

/**
 * Why the server refuses this page, { needsToken, text }; null if it does not. Browsers do not tell why a WebSocket was
 * refused, so this asks over HTTP.
 */
export async function refusal() {
  const token = readToken();
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  try {
    const answer = await fetch("status.json", { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (answer.status !== 403) return null;
    const { token: needsToken, error } = await answer.json();
    return { needsToken, text: error };
  } catch {
    return null; // no answer, or the token is not valid in a header
  }
}
