// What the server measures each second, for the last ten minutes.

const KEPT_S = 600;

// Between two samples that are further apart nothing is known: the page, or the server, was away.
export const GAP_S = 15;

export class Samples {
  #all = [];

  /** Begin with what the server remembers; of the time before, what this page does. */
  start(history, isSameProcess) {
    const first = history[0]?.at ?? Infinity;
    const before = isSameProcess ? this.#all.filter(({ at }) => at < first) : this.#all;
    this.#all = [...before, ...history.filter(({ at }) => at > (before.at(-1)?.at ?? 0))];
    this.#forget();
  }

  add(sample) {
    if (sample.at > (this.#all.at(-1)?.at ?? 0)) this.#all.push(sample);
    this.#forget();
  }

  /** Seconds of which anything is known. */
  get span() {
    return this.#all.length ? this.#all.at(-1).at - this.#all[0].at : 0;
  }

  /** The last `span` seconds of one endpoint, or of all ("") together: [{ at, sessions, messages_in, … }]. */
  of(endpoint, span) {
    const from = (this.#all.at(-1)?.at ?? 0) - span - 1;
    const found = [];
    for (const { at, endpoints } of this.#all) {
      if (at < from) continue;
      if (endpoint === "") found.push({ at, ...joined(Object.values(endpoints)) });
      else if (endpoint in endpoints) found.push({ at, ...endpoints[endpoint] });
    }
    return found;
  }

  #forget() {
    const from = (this.#all.at(-1)?.at ?? 0) - KEPT_S - 1;
    const first = this.#all.findIndex(({ at }) => at >= from);
    if (first > 0) this.#all.splice(0, first);
  }
}

// Counts and rates add up. Of latencies the worst is taken: a mean of percentiles would be none.
function joined(endpoints) {
  const total = {};
  for (const endpoint of endpoints) {
    for (const [name, value] of Object.entries(endpoint)) {
      if (value === null) total[name] ??= null;
      else if (name.endsWith("_s")) total[name] = Math.max(total[name] ?? 0, value);
      else total[name] = (total[name] ?? 0) + value;
    }
  }
  return total;
}
