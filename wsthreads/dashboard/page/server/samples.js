// What the server measures each second, for the last ten minutes.

const KEPT_S = 600;

// Between two samples that are further apart nothing is known: the page, or the server, was away.
export const GAP_S = 15;

const RATES = new Set(["messages_in", "bytes_in", "messages_out", "bytes_out", "errors"]);

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
    return evened(found);
  }

  #forget() {
    const from = (this.#all.at(-1)?.at ?? 0) - KEPT_S - 1;
    const first = this.#all.findIndex(({ at }) => at >= from);
    if (first > 0) this.#all.splice(0, first);
  }
}

// While nobody looked, the server measured every five seconds, since then every second: so that load does not seem to
// get restless now, all of it is shown in steps of the longer kind. The last one is made of the last five seconds.
const STEP_S = 5;

function evened(samples) {
  const isCoarse = samples.some(({ at }, index) => index > 0 && within(at - samples[index - 1].at, STEP_S / 2, GAP_S));
  if (!isCoarse) return samples;
  const steps = [];
  for (const sample of samples) {
    const step = Math.floor(sample.at / STEP_S);
    if (steps.at(-1)?.step === step) steps.at(-1).parts.push(sample);
    else steps.push({ step, parts: [sample] });
  }
  const { at } = samples.at(-1);
  steps.at(-1).parts = samples.filter((sample) => sample.at > at - STEP_S);
  return steps.map(({ parts }) => (parts.length === 1 ? parts[0] : mean(parts)));
}

function within(value, low, high) {
  return value > low && value < high;
}

// The newest of counts; of rates the mean; of times the mean over the messages that they were measured at.
function mean(parts) {
  const result = { ...parts.at(-1) };
  for (const name of Object.keys(result)) {
    const isTime = name.endsWith("_s");
    if (!isTime && !RATES.has(name)) continue;
    let sum = 0;
    let weights = 0;
    for (const part of parts) {
      if (part[name] === null || part[name] === undefined) continue;
      const weight = isTime ? part.messages_in + 0.01 : 1;
      sum += part[name] * weight;
      weights += weight;
    }
    result[name] = weights ? sum / weights : null;
  }
  return result;
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
