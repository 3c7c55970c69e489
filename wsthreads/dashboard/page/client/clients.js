// The client: a form that connects, and its connections, side by side or as tabs.

import { $, make, setOptions, setText } from "../dom.js";
import { addressOf } from "../server/endpoints.js";
import { plural } from "../format.js";
import { rove } from "../roving.js";
import { freeName, nextName } from "./names.js";
import { Pane } from "./pane.js";
import { filledPath, parametersOf } from "./rules.js";

const MORE = 5;

export class Clients {
  #panes = [];
  #shown = null; // the visible pane, if panes are tabs
  #refreshTabs;

  constructor() {
    this.#refreshTabs = rove($("pane-tabs"), "[role=tab]", { horizontal: true, onMove: (tab) => tab.click() });
    $("client-user").value = freeName([]);
    // A phone has no room for two panes side by side.
    document.querySelector("input[name=arrangement][value=tabs]").checked = matchMedia("(max-width: 40rem)").matches;
    $("connect-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#connect(1)[0]?.field.focus({ preventScroll: true });
    });
    $("connect-more").addEventListener("click", () => $("connect-form").reportValidity() && this.#connect(MORE));
    $("client-endpoint").addEventListener("change", () => this.#askForParameters());
    $("connect-form").addEventListener("input", () => this.#showAddress());
    for (const choice of document.querySelectorAll("input[name=arrangement]")) choice.addEventListener("change", () => this.#arrange());
    $("close-all").addEventListener("click", () => this.#panes.forEach((pane) => pane.close()));
    $("remove-closed").addEventListener("click", () => {
      for (const pane of [...this.#panes]) if (!pane.isOpen && !pane.isConnecting) pane.remove();
    });
    this.#showAddress();
  }

  endpoints(paths) {
    setOptions($("client-endpoint"), paths);
    this.#askForParameters();
  }

  /** Suggest the subprotocols that the server speaks. */
  offer(subprotocols) {
    $("client-subprotocols").placeholder = subprotocols.join(", ") || "none";
  }

  /** Fill in the form for an endpoint. */
  prepare(path) {
    $("client-endpoint").value = path;
    this.#askForParameters();
    $("client-user").focus();
    $("client-user").select();
  }

  /** Show a field for each parameter of the endpoint's path. Values that were typed for another path stay. */
  #askForParameters() {
    const path = $("client-endpoint").value;
    const before = this.#pathParameters();
    if ($("client-path").dataset.path !== path) {
      $("client-path").dataset.path = path;
      $("client-path").replaceChildren(...parametersOf(path).map(({ name, takes, example }) =>
        make("label", { className: "field short" }, `${takes} `,
          make("input", { name, value: before[name] ?? example, required: true, autocomplete: "off", autocapitalize: "off" }))));
    }
    this.#showAddress();
  }

  #pathParameters() {
    return Object.fromEntries([...$("client-path").querySelectorAll("input")].map(({ name, value }) => [name, value]));
  }

  #url(user) {
    const url = addressOf(filledPath($("client-endpoint").value || "/", this.#pathParameters()));
    const parameters = $("client-parameters").value.trim().replace(/^\?/, "");
    const query = [user && new URLSearchParams({ user }).toString(), parameters].filter(Boolean).join("&");
    url.search = query;
    return url;
  }

  #showAddress() {
    setText($("client-address"), $("client-endpoint").value ? this.#url($("client-user").value.trim()).href : "");
  }

  #connect(times) {
    if (!$("client-endpoint").value) return [];
    const made = [];
    for (let n = 0; n < times; n++) {
      const user = $("client-user").value.trim();
      const pane = new Pane({
        name: user || `anonymous ${this.#panes.length + 1}`,
        url: this.#url(user),
        subprotocols: $("client-subprotocols").value.split(/[\s,]+/).filter(Boolean),
        isJsonOpen: () => $("open-json").checked,
        onChange: (changed) => this.#changed(changed),
      });
      made.push(pane);
      this.#panes.push(pane);
      $("panes").append(pane.element);
      const taken = this.#panes.map(({ name }) => name);
      if (user) $("client-user").value = nextName(user, taken); // the next connection gets another name
    }
    this.#shown = made[0];
    this.#arrange();
    this.#showAddress();
    return made;
  }

  #changed(pane) {
    if (pane.isRemoved && this.#panes.includes(pane)) {
      const hadFocus = pane.element.contains(document.activeElement);
      const at = this.#panes.indexOf(pane);
      this.#panes.splice(at, 1);
      pane.element.remove();
      const next = this.#panes[Math.min(at, this.#panes.length - 1)] ?? null;
      if (this.#shown === pane) this.#shown = next;
      if (hadFocus) (next?.field ?? $("client-user")).focus();
    }
    this.#arrange();
  }

  #arrange() {
    const areTabs = document.querySelector("input[name=arrangement]:checked").value === "tabs";
    const open = this.#panes.filter((pane) => pane.isOpen).length;
    setText($("client-count"), `${plural(this.#panes.length, "connection")}, ${open} open`);
    $("client-toolbar").hidden = this.#panes.length === 0;
    $("no-panes").hidden = this.#panes.length > 0;
    $("panes").classList.toggle("as-tabs", areTabs);
    $("pane-tabs").hidden = !areTabs || this.#panes.length === 0;
    for (const pane of this.#panes) {
      pane.element.hidden = areTabs && pane !== this.#shown;
      pane.element.setAttribute("role", areTabs ? "tabpanel" : "region");
    }
    if (areTabs) this.#showTabs();
  }

  #showTabs() {
    const strip = $("pane-tabs");
    const present = Array.from(strip.children, (tab) => tab.getAttribute("aria-controls"));
    if (present.join() !== this.#panes.map(({ id }) => id).join()) {
      strip.replaceChildren(...this.#panes.map((pane) => make(
        "button",
        { type: "button", role: "tab", "aria-controls": pane.id, onclick: () => this.#showOnly(pane) },
        make("span", { className: "dot", "aria-hidden": "true" }), pane.name,
      )));
    }
    this.#panes.forEach((pane, index) => {
      strip.children[index].setAttribute("aria-selected", pane === this.#shown);
      strip.children[index].dataset.state = pane.element.dataset.state;
    });
    this.#refreshTabs();
  }

  #showOnly(pane) {
    this.#shown = pane;
    this.#arrange();
  }
}
