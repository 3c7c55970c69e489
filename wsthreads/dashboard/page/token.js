// The token that a page elsewhere than under `wsthreads run` asks for: where it comes from, and where it is kept.

const KEY = "wsthreads-token";

let inMemory = null; // where the browser forbids storage

export function readToken() {
  try {
    return sessionStorage.getItem(KEY) ?? inMemory;
  } catch {
    return inMemory;
  }
}

/** Keep it as long as this window; null forgets it. */
export function keepToken(token) {
  inMemory = token;
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // it lasts as long as the page
  }
}

/** Take the token out of the address, /_wsthreads/#token=…, so that it is in no history, bookmark or picture. */
export function takeFromAddress() {
  const url = new URL(location.href);
  const inFragment = new URLSearchParams(url.hash.slice(1)).get("token");
  const token = inFragment ?? url.searchParams.get("token"); // where somebody took a # for a ?
  if (token === null) return;
  keepToken(token);
  url.searchParams.delete("token");
  if (inFragment !== null) url.hash = "";
  history.replaceState(history.state, "", url);
}

/** The subprotocols to ask for: a WebSocket from a browser has no other place for a secret that is not logged. */
export function subprotocols() {
  const token = readToken();
  if (token === null) return ["wsthreads.live"];
  const binary = String.fromCharCode(...new TextEncoder().encode(token));
  return ["wsthreads.live", `token.${btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "")}`];
}

/**
 * Why the server refuses us, { needsToken, text }; null if it does not. Browsers do not tell why a socket was refused,
 * so this asks again over HTTP.
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
    return null; // it does not answer at all, or the token cannot be in a header, and so is none
  }
}
