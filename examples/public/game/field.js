// The field: players and the coin, drawn between the last two states, so that 20 states a second look smooth.

import { $ } from "../dom.js";

const STEP_MS = 50; // between two states
const SIZE = 600;
const figures = new Map(); // by the player's name

export function set({ players, coin, winner }, me) {
  const now = performance.now();
  for (const [name, figure] of figures) {
    if (players.some((player) => player.name === name)) continue;
    figure.element.remove();
    figures.delete(name);
  }
  for (const player of players) {
    const { name, seat, isHere, x, y } = player;
    if (!figures.has(name)) figures.set(name, { element: figureFor(name), x, y });
    const figure = figures.get(name);
    Object.assign(figure, { from: placeOf(figure, now), x, y, at: now });
    figure.element.setAttribute("class", `figure seat-${seat}${name === me ? " mine" : ""}${isHere ? "" : " away"}`);
  }
  $("coin").setAttribute("cx", coin.x);
  $("coin").setAttribute("cy", coin.y);
  $("coin").toggleAttribute("hidden", winner !== null);
}

export function draw(now) {
  for (const figure of figures.values()) {
    const { x, y } = placeOf(figure, now);
    figure.element.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    const label = figure.element.lastElementChild;
    const half = label.getComputedTextLength() / 2;
    label.setAttribute("x", Math.min(Math.max(x, half + 6), SIZE - half - 6) - x); // the name stays within the field
    label.setAttribute("y", y < 60 ? 44 : -30);
  }
}

export function clear() {
  figures.clear();
  $("figures").replaceChildren();
}

function placeOf({ from, x, y, at }, now) {
  if (!from) return { x, y };
  const part = Math.min(Math.max((now - at) / STEP_MS, 0), 1);
  return { x: from.x + (x - from.x) * part, y: from.y + (y - from.y) * part };
}

function figureFor(name) {
  const make = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const label = make("text", {});
  label.textContent = name;
  const figure = make("g", {});
  figure.append(make("circle", { r: 22 }), label);
  $("figures").append(figure);
  return figure;
}
