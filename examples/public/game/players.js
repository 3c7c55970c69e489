// The list of the four seats, with the coins of each player.

import { $, element } from "../dom.js";

const SEATS = 4;
let shown = ""; // the content that the list shows; the list is made again only if this changes

export function show({ players, winner }, me) {
  const seats = Array.from({ length: SEATS }, (_, seat) => players.find((player) => player.seat === seat) ?? null);
  const wanted = JSON.stringify([winner, me, seats.map((one) => one && [one.name, one.coins, one.isHere])]);
  if (wanted === shown) return;
  shown = wanted;
  $("players").replaceChildren(...seats.map((player, seat) => itemFor(player, seat, winner, me)));
}

function itemFor(player, seat, winner, me) {
  const item = element("li", `seat-${seat}`, "");
  if (!player) {
    item.append(element("span", "dot", ""), element("span", "name free", "free"));
    return item;
  }
  const { name, coins, isHere } = player;
  const notes = [name === me && "you", !isHere && "away", name === winner && "wins!"].filter(Boolean);
  item.classList.toggle("away", !isHere);
  item.append(
    element("span", "dot", ""),
    element("span", "name", notes.length ? `${name} (${notes.join(", ")})` : name),
    element("span", "coins", coins),
  );
  return item;
}
