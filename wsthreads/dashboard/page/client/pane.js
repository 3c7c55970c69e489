// One connection of the client: its state, its messages, and a field for sending.

import { describeClose } from "../closecodes.js";
import { make, setText } from "../dom.js";
import { askForClose } from "../dialogs.js";
import { Frames } from "./frames.js";
import { parseHex } from "./hex.js";
import { giveHistory, remember } from "./history.js";

let lastNumber = 0;

export class Pane {
  #url;
  #subprotocols;
  #socket = null;
  #onChange;

  /** Connects at once. `onChange(pane)` is called when its state has changed, and when it should be removed. */
  constructor({ name, url, subprotocols, isJsonOpen, onChange }) {
    this.name = name;
    this.id = `pane-${++lastNumber}`;
    this.isRemoved = false;
    this.#url = url;
    this.#subprotocols = subprotocols;
    this.#onChange = onChange;
    this.#build(isJsonOpen);
    this.connect();
  }

  #build(isJsonOpen) {
    const small = (textContent, onclick, label) => make("button", { type: "button", className: "small quiet", textContent, onclick, "aria-label": label });
    this.state = make("span", { className: "pane-state" });
    this.toggle = small("Close", () => (this.isOpen || this.isConnecting ? this.close() : this.connect()));
    this.closeWith = small("Close with …", () => this.#closeWith(), `Close ${this.name} with a code`);
    this.frames = new Frames(`Messages of ${this.name}`, isJsonOpen);
    this.field = make("textarea", {
      rows: 1, autocomplete: "off", autocapitalize: "off", spellcheck: false, placeholder: "Message",
      "aria-label": `Message from ${this.name}`,
    });
    this.kind = make("select", { "aria-label": `Kind of message from ${this.name}` }, new Option("text"), new Option("hex"));
    this.sendButton = make("button", { className: "small", textContent: "Send" });
    const form = make("form", { className: "compose" }, this.field, this.kind, this.sendButton);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    giveHistory(this.field);
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.field.addEventListener("input", () => this.#fit());
    this.kind.addEventListener("change", () => {
      this.field.placeholder = this.kind.value === "hex" ? "01 ff 7a" : "Message";
    });
    this.element = make(
      "section",
      { className: "pane", id: this.id, "aria-label": this.name },
      make("header", {},
        make("h3", {}, make("span", { className: "dot", "aria-hidden": "true" }), this.name),
        make("span", { className: "mono soft pane-path", textContent: this.#url.pathname }),
        small("✕", () => this.remove(), `Remove ${this.name}`)),
      make("div", { className: "pane-bar" }, this.state, this.toggle, this.closeWith, small("Clear", () => this.frames.clear(), `Clear ${this.name}`)),
      this.frames.element,
      form,
    );
    // Screen readers read out only the connection that has the focus.
    this.element.addEventListener("focusin", () => this.frames.element.setAttribute("aria-live", "polite"));
    this.element.addEventListener("focusout", () => this.frames.element.setAttribute("aria-live", "off"));
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  get isConnecting() {
    return this.#socket?.readyState === WebSocket.CONNECTING;
  }

  connect() {
    this.frames.note(`connecting to ${this.#url.pathname}${this.#url.search}`);
    const began = performance.now();
    let socket;
    try {
      socket = new WebSocket(this.#url, this.#subprotocols);
    } catch (error) {
      this.frames.note(error.message, true); // for example, an invalid subprotocol
      this.#show("not connected", "bad");
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const speaking = socket.protocol ? `, speaking ${socket.protocol}` : "";
      this.frames.note(`open after ${Math.round(performance.now() - began)} ms${speaking}`);
      this.#show(`open${speaking}`, "open");
    };
    socket.onmessage = ({ data }) => this.frames.add("in", typeof data === "string" ? data : new Uint8Array(data));
    socket.onclose = ({ code, reason }) => {
      const words = describeClose(code, reason);
      this.frames.note(`closed: ${words}`, code !== 1000 && code !== 1005);
      this.#show(`closed: ${words}`, code === 1000 || code === 1005 ? "closed" : "bad");
    };
    this.#show("connecting", "connecting");
  }

  #show(text, kind) {
    setText(this.state, text);
    this.element.dataset.state = kind;
    setText(this.toggle, kind === "open" || kind === "connecting" ? "Close" : "Reconnect");
    this.toggle.setAttribute("aria-label", `${this.toggle.textContent} ${this.name}`);
    this.closeWith.disabled = this.sendButton.disabled = !this.isOpen;
    this.#onChange(this);
  }

  #send() {
    if (!this.isOpen) return; // a message that cannot be sent stays in its field
    const text = this.field.value;
    const data = this.kind.value === "hex" ? parseHex(text) : text;
    if (data === null) {
      this.frames.note("not sent: hexadecimal digits come in pairs, such as 01 ff 7a", true);
      return;
    }
    this.#socket.send(data);
    this.frames.add("out", data);
    remember(text);
    this.field.value = "";
    this.#fit();
  }

  // Fit the field's height to its text, up to eight rows.
  #fit() {
    this.field.rows = Math.min(8, this.field.value.split("\n").length);
  }

  async #closeWith() {
    const chosen = await askForClose(`Close ${this.name}`);
    if (chosen) this.close(chosen.code, chosen.reason);
  }

  close(code = 1000, reason = "") {
    if (!this.isOpen && !this.isConnecting) return;
    try {
      this.#socket.close(code, reason);
      this.frames.note(`closing with ${code}${reason ? `: “${reason}”` : ""}`);
    } catch (error) {
      this.frames.note(error.message, true); // a reason of more than 123 bytes
    }
  }

  remove() {
    this.isRemoved = true;
    this.close();
    this.#onChange(this);
  }
}
