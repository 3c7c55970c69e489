// The parts of the page. The one that is shown is in the address, so that links and the back button work.

import { $ } from "./dom.js";
import { rove } from "./roving.js";

// As #/sessions. With #sessions, which is an element's id, browsers would have Tab begin there and not at the top.
const addressFor = (name) => `#/${name}`;

/** `views` has for each name { show(), hide() }: a view works only while it is seen. Returns a function that goes to one. */
export function makeTabs(views) {
  const names = Object.keys(views);
  let current = null;

  const show = (name) => {
    if (name === current) return;
    if (current !== null) views[current].hide?.();
    current = name;
    for (const each of names) {
      $(each).hidden = each !== name;
      $(`tab-${each}`).setAttribute("aria-selected", each === name);
    }
    $(`tab-${name}`).scrollIntoView({ block: "nearest", inline: "nearest" });
    refresh();
    if (!document.hidden) views[name].show?.();
  };

  const named = () => names.find((name) => location.hash === addressFor(name)) ?? names[0];
  const refresh = rove($("tabs"), "[role=tab]", { horizontal: true, onMove: (tab) => tab.click() });

  const go = (name) => {
    if (named() !== name) history.pushState(null, "", addressFor(name));
    show(name);
  };

  for (const name of names) $(`tab-${name}`).addEventListener("click", () => go(name));
  addEventListener("popstate", () => show(named()));
  document.addEventListener("visibilitychange", () => {
    // Nobody looks: the server need not send lists.
    if (document.hidden) views[current].hide?.();
    else views[current].show?.();
  });
  $("skip").addEventListener("click", (event) => {
    event.preventDefault(); // its address would be taken for that of a part
    $("main").focus();
  });
  show(named());
  return go;
}
