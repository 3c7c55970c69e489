// The plots of the last minutes: all show the same endpoint, the same time, and the same moment under the pointer.

import { $, onNextFrame, setOptions, setText } from "../dom.js";
import { bytes, clock, rate, seconds, short } from "../format.js";
import { Plot } from "./plot.js";

const PLOTS = [
  { title: "Messages", format: rate, smallest: 1, series: [
    { name: "in", of: (sample) => sample.messages_in }, { name: "out", of: (sample) => sample.messages_out }] },
  { title: "Handler time", format: seconds, smallest: 0.001, series: [
    { name: "p50", of: (sample) => sample.handler_p50_s }, { name: "p99", of: (sample) => sample.handler_p99_s }] },
  { title: "Errors", format: rate, smallest: 1, series: [{ name: "", of: (sample) => sample.errors }] },
  { title: "Bytes", format: (value) => value === null ? bytes(null) : `${bytes(value)}/s`, smallest: 100, series: [
    { name: "in", of: (sample) => sample.bytes_in }, { name: "out", of: (sample) => sample.bytes_out }] },
  { title: "Sessions and rooms", format: short, smallest: 2, series: [
    { name: "sessions", of: (sample) => sample.sessions }, { name: "rooms", of: (sample) => sample.rooms }] },
  { title: "Waiting to be sent", format: bytes, smallest: 100, series: [{ name: "", of: (sample) => sample.bytes_waiting }] },
];

/** `samples` is what there is. Returns { show, hide, endpoints, draw } */
export function makePlots(samples) {
  let isShown = false;
  let moment = null;

  const draw = onNextFrame(() => {
    if (!isShown) return;
    // A server that has just started has little to show: that little fills the plot.
    const span = Math.min(Number($("plots-span").value), Math.max(60, Math.ceil(samples.span)));
    const found = samples.of($("plots-endpoint").value, span);
    for (const plot of plots) plot.show(found, span, moment);
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
