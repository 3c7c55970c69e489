// The plots of the last minutes. All show the same endpoint, time span and selected moment.

import { $, onNextFrame, setOptions, setText } from "../dom.js";
import { bytes, clock, count, rate, seconds, short } from "../format.js";
import { Plot } from "./plot.js";

const PLOTS = [
  { title: "Messages", format: rate, smallest: 1, series: [
    { name: "in", of: (sample) => sample.messages_in }, { name: "out", of: (sample) => sample.messages_out }] },
  { title: "Handler time", format: seconds, smallest: 0.001, series: [
    { name: "p50", of: (sample) => sample.handler_p50_s }, { name: "p99", of: (sample) => sample.handler_p99_s }],
    note: (samples) => {
      const last = samples.findLast(({ slowest }) => slowest);
      return last === undefined ? "" : `of ${last.slowest}, the slowest`;
    } },
  { title: "Errors", format: rate, smallest: 1, series: [{ name: "", of: (sample) => sample.errors }],
    note: (samples) => `${count(samples.at(-1)?.errors_total ?? 0)} since the start` },
  { title: "Bytes", format: (value) => value === null ? bytes(null) : `${bytes(value)}/s`, smallest: 100, series: [
    { name: "in", of: (sample) => sample.bytes_in }, { name: "out", of: (sample) => sample.bytes_out }] },
  { title: "Sessions and rooms", format: short, smallest: 2, series: [
    { name: "sessions", of: (sample) => sample.sessions }, { name: "rooms", of: (sample) => sample.rooms }] },
  { title: "Waiting to be sent", format: bytes, smallest: 100, series: [{ name: "", of: (sample) => sample.bytes_waiting }] },
];

const IDLE = "No client was connected in this time. Try an endpoint above, or connect a page or a program to its address.";

/** Returns { show, hide, endpoints, draw }. */
export function makePlots(samples) {
  let isShown = false;
  let isChosen = false; // whether the user has chosen the time span
  let moment = null;

  const draw = onNextFrame(() => {
    if (!isShown) return;
    // A server that has just started has little to show, so the shortest span fits best.
    if (!isChosen) $("plots-span").value = samples.span > 150 ? "300" : "60";
    const span = Number($("plots-span").value);
    const found = samples.of($("plots-endpoint").value, span);
    for (const plot of plots) plot.show(found, span, moment);
    const isIdle = found.every((sample) => !(sample.sessions || sample.messages_in || sample.messages_out || sample.errors));
    $("no-load").hidden = !isIdle;
    $("plots").hidden = found.length === 0;
    setText($("no-load"), found.length ? IDLE : "The first values come in a moment.");
    setText($("plots-moment"), moment === null ? "" : `values at ${clock(moment)}`);
  });
  const plots = PLOTS.map((definition) => new Plot(definition, (at) => {
    moment = at;
    draw();
  }));
  $("plots").replaceChildren(...plots.map((plot) => plot.element));

  const observer = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      plots.find((plot) => plot.element === target).resize(contentRect.width);
    }
  });
  for (const plot of plots) observer.observe(plot.element);
  $("plots-span").addEventListener("change", () => { isChosen = true; });
  for (const id of ["plots-endpoint", "plots-span"]) $(id).addEventListener("change", draw);

  return {
    draw,
    endpoints: (paths) => setOptions($("plots-endpoint"), paths, 1),
    show: () => {
      isShown = true;
      draw();
    },
    hide: () => { isShown = false; },
  };
}
