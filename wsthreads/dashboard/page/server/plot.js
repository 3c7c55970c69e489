// One plot over time: lines with axes; pointer or arrow keys show the values at a moment.

import { make, makeSvg, setText } from "../dom.js";
import { clock } from "../format.js";
import { GAP_S } from "./samples.js";

const HEIGHT = 132;
const MARGIN = { top: 8, right: 8, bottom: 18, left: 56 };
const LONE_PX = 4;
const DASHES = ["", "5 3", "1.5 3"]; // lines differ in these, too, not only in colour

export class Plot {
  #definition;
  #samples = [];
  #span = 300;
  #width = 0;
  #moment = null; // the selected time, or null for the newest
  #onMoment;

  /**
   * `definition` is { title, series: [{ name, of }], format, smallest, note }. `of` takes a value from a sample;
   * `format` makes a text of it with its unit. The vertical axis reaches at least to `smallest`. `note(samples)`, if
   * given, returns a text about the newest sample. `onMoment(time)` is called with the selected time, so that all plots
   * show the same.
   */
  constructor(definition, onMoment) {
    this.#definition = definition;
    this.#onMoment = onMoment;
    this.#build();
  }

  #build() {
    const { title, series } = this.#definition;
    this.values = series.map(() => make("output", { className: "mono" }));
    const legend = series.map(({ name }, index) => make(
      "span",
      { className: `key series-${index}` },
      makeSvg("svg", { width: 19, height: 8, "aria-hidden": "true" },
        makeSvg("path", { d: "M0 4H19", "stroke-dasharray": DASHES[index] })),
      name && `${name} `,
      this.values[index],
    ));
    this.note = this.#definition.note && make("span", { className: "note soft" });
    this.svg = makeSvg("svg", { role: "slider", tabindex: "0", "aria-label": `${title}: values over time`, height: HEIGHT });
    this.element = make("figure", { className: "plot" },
      make("figcaption", {}, make("h3", { textContent: title }), this.note, make("span", { className: "legend" }, ...legend)), this.svg);
    this.axes = makeSvg("g", { class: "axes" });
    this.lines = series.map((_, index) => makeSvg("path", { class: `line series-${index}`, "stroke-dasharray": DASHES[index] }));
    this.cursor = makeSvg("path", { class: "cursor" });
    this.dots = series.map((_, index) => makeSvg("circle", { class: `dot series-${index}`, r: 3 }));
    this.svg.append(this.axes, ...this.lines, this.cursor, ...this.dots);
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#onMoment(null));
    this.svg.addEventListener("blur", () => this.#onMoment(null));
    this.svg.addEventListener("keydown", (event) => this.#step(event));
  }

  /** Set the available width in pixels. */
  resize(width) {
    this.#width = Math.round(width);
    this.svg.setAttribute("width", this.#width);
    this.draw();
  }

  show(samples, span, moment) {
    this.#samples = samples;
    this.#span = span;
    this.#moment = moment;
    this.draw();
  }

  draw() {
    if (this.#width < 80) return;
    const { series, smallest } = this.#definition;
    const highest = Math.max(smallest, ...this.#samples.flatMap((sample) => series.map(({ of }) => of(sample) ?? 0)));
    this.top = niceCeiling(highest);
    this.end = this.#samples.at(-1)?.at ?? Date.now() / 1000;
    if (this.note) setText(this.note, this.#definition.note(this.#samples));
    this.#drawAxes();
    series.forEach(({ of }, index) => this.lines[index].setAttribute("d", this.#pathOf(of)));
    this.#drawMoment();
  }

  #x(at) {
    const inner = this.#width - MARGIN.left - MARGIN.right;
    return MARGIN.left + inner * (1 - (this.end - at) / this.#span);
  }

  #y(value) {
    return HEIGHT - MARGIN.bottom - (HEIGHT - MARGIN.top - MARGIN.bottom) * (value / this.top);
  }

  #pathOf(of) {
    let path = "";
    let before = -Infinity;
    for (const sample of this.#samples) {
      const value = of(sample);
      const x = this.#x(sample.at);
      if (value === null || value === undefined || x < MARGIN.left) continue;
      const point = `${x.toFixed(1)} ${this.#y(value).toFixed(1)}`;
      // Each line begins with a short dash, so that a single value is visible.
      path += sample.at - before > GAP_S ? `M${(x - LONE_PX).toFixed(1)} ${point.split(" ")[1]}H${x.toFixed(1)}` : `L${point}`;
      before = sample.at;
    }
    return path;
  }

  #drawAxes() {
    const parts = [];
    const right = this.#width - MARGIN.right;
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(this.#y(this.top * share)) + 0.5;
      parts.push(makeSvg("path", { class: "grid", d: `M${MARGIN.left} ${y}H${right}` }));
      parts.push(makeSvg("text", { x: MARGIN.left - 6, y: y + 3.5, "text-anchor": "end" }, this.#definition.format(this.top * share)));
    }
    const step = this.#span <= 90 ? 15 : this.#span <= 180 ? 30 : this.#span <= 360 ? 60 : 120;
    for (let at = Math.ceil((this.end - this.#span) / step) * step; at <= this.end; at += step) {
      const x = this.#x(at);
      if (x < MARGIN.left + 12 || x > right - 12) continue; // its label would be cut off
      parts.push(makeSvg("path", { class: "grid", d: `M${x.toFixed(1)} ${HEIGHT - MARGIN.bottom}v4` }));
      parts.push(makeSvg("text", { x, y: HEIGHT - 3, "text-anchor": "middle" }, clock(at, { seconds: step < 60 })));
    }
    this.axes.replaceChildren(...parts);
  }

  #drawMoment() {
    const { title, series, format } = this.#definition;
    const sample = this.#moment === null ? this.#samples.at(-1) : this.#nearest(this.#moment);
    const isLooking = this.#moment !== null && sample !== undefined;
    this.cursor.setAttribute("d", isLooking ? `M${this.#x(sample.at).toFixed(1)} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}` : "");
    const texts = series.map(({ name, of }, index) => {
      const value = sample === undefined ? null : of(sample) ?? null;
      this.dots[index].classList.toggle("away", !isLooking || value === null);
      if (isLooking && value !== null) {
        this.dots[index].setAttribute("cx", this.#x(sample.at).toFixed(1));
        this.dots[index].setAttribute("cy", this.#y(value).toFixed(1));
      }
      setText(this.values[index], format(value));
      return `${name} ${format(value)}`.trim();
    });
    const at = sample ? clock(sample.at) : "nothing yet";
    this.svg.setAttribute("aria-valuenow", sample ? Math.round(sample.at - this.end) : 0);
    this.svg.setAttribute("aria-valuemin", -this.#span);
    this.svg.setAttribute("aria-valuemax", 0);
    this.svg.setAttribute("aria-valuetext", `${title} at ${at}: ${texts.join(", ")}`);
  }

  #nearest(at) {
    let best;
    for (const sample of this.#samples) {
      if (best === undefined || Math.abs(sample.at - at) <= Math.abs(best.at - at)) best = sample;
    }
    return best;
  }

  #point(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const inner = this.#width - MARGIN.left - MARGIN.right;
    this.#onMoment(this.end - this.#span * (1 - (x - MARGIN.left) / inner));
  }

  #step(event) {
    const { length } = this.#samples;
    const at = this.#moment === null ? length - 1 : this.#samples.indexOf(this.#nearest(this.#moment));
    const to = {
      ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: length - 1,
    }[event.key];
    if (event.key === "Escape") this.#onMoment(null);
    if (to === undefined || length === 0) return;
    event.preventDefault();
    this.#onMoment(this.#samples[Math.min(Math.max(to, 0), length - 1)].at);
  }
}

/** The smallest round number, with a round half, that is not below `value`. */
function niceCeiling(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * size).find((nice) => nice >= value * 0.9999);
}
