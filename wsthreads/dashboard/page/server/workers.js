// Names the process that holds a session.

let pageHost = null;

/** Remember the host of the process that sends this page its data. */
export function useHost(host) {
  pageHost = host;
}

/** A session's process: its id, and its host if it is not the page's. "" if it is not known. */
export function workerOf({ pid, host }) {
  if (!pid) return "";
  return host && host !== pageHost ? `${pid} on ${host}` : String(pid);
}
