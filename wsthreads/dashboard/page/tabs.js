// The tabs of the page. The address names the visible tab, so links and the back button work.

import { $ } from "./dom.js";
import { rove } from "./roving.js";

// The address of a tab, such as #/sessions. With #sessions, the id of an element, the Tab key would begin at that element
// and not at the top.
const addressFor = (name) => `#/${name}`;

/** `views` maps names to { show(), hide() }; a view works only while it is visible. Returns a function that opens a tab. */
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
    // The page is hidden: the server does not need to send lists.
    if (document.hidden) views[current].hide?.();
    else views[current].show?.();
  });
  $("skip").addEventListener("click", (event) => {
    event.preventDefault(); // otherwise #main would be taken for a tab's address
    $("main").focus();
  });
  show(named());
  return go;
}
