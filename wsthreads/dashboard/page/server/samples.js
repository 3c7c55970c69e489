// The server's samples of the last ten minutes.

const KEPT_S = 600;

// Two samples that are further apart are not joined by a line: the page or the server was away in between.
export const GAP_S = 15;

const RATES = new Set(["messages_in", "bytes_in", "messages_out", "bytes_out", "errors"]);

export class Samples {
  #all = [];

  /** Begin with the server's history, and keep this page's own samples from before it. */
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

  /** How many seconds the samples cover. */
  get span() {
    return this.#all.length ? this.#all.at(-1).at - this.#all[0].at : 0;
  }

  /** The last `span` seconds of one endpoint, or of all ("") added up: [{ at, sessions, messages_in, … }]. */
  of(endpoint, span) {
    const from = (this.#all.at(-1)?.at ?? 0) - span - 1;
    const found = [];
    for (const { at, endpoints } of this.#all) {
      if (at < from) continue;
      if (endpoint === "") found.push({ at, ...joined(endpoints) });
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

// While no page was open, the server took a sample every five seconds; since then, every second. All are shown in steps
// of five seconds, so that the line does not become more uneven when the page is opened. The last step covers the last
// five seconds.
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

// One value for several samples: the newest of the counts, the mean of the rates, and the mean of the times, weighted by
// the number of messages.
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

// One value for several endpoints: counts and rates are added. Of latencies, the highest is taken, because a mean of
// percentiles is not a percentile. `slowest` is the endpoint with the highest p99 of its handler.
function joined(endpoints) {
  const total = {};
  for (const [path, endpoint] of Object.entries(endpoints)) {
    const isAlone = Object.keys(endpoints).length === 1;
    if (!isAlone && endpoint.handler_p99_s > (total.handler_p99_s ?? 0)) total.slowest = path;
    for (const [name, value] of Object.entries(endpoint)) {
      if (value === null) total[name] ??= null;
      else if (name.endsWith("_s")) total[name] = Math.max(total[name] ?? 0, value);
      else total[name] = (total[name] ?? 0) + value;
    }
  }
  return total;
}
