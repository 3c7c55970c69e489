// Modal dialogs, and a short message at the bottom that shows the result of an action.

import { $, make, setText } from "./dom.js";

/**
 * Ask in a dialog. `fields` describes its inputs: [{ name, label, type, value, … }]. Resolves to the typed texts by
 * name, or to null after Cancel or Escape.
 */
export function ask({ title, text = "", action, fields = [], isDangerous = false }) {
  const inputs = fields.map(({ label, ...properties }) => make("input", { autocomplete: "off", ...properties }));
  const form = make(
    "form",
    { method: "dialog" },
    make("h2", { textContent: title }),
    text && make("p", { textContent: text }),
    ...inputs.map((input, index) => make("label", { className: "field" }, `${fields[index].label} `, input)),
    make(
      "div",
      { className: "buttons" },
      make("button", { value: "yes", className: isDangerous ? "danger" : "", textContent: action }),
      make("button", { type: "button", className: "quiet", textContent: "Cancel", onclick: () => dialog.close("") }),
    ),
  );
  // A new dialog for each question: the event "close" comes late, and could reach the next question.
  const dialog = make("dialog", { "aria-label": title }, form);
  document.body.append(dialog);
  dialog.showModal();
  (inputs[0] ?? form.querySelector("button")).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      const typed = Object.fromEntries(inputs.map((input) => [input.name, input.value]));
      resolve(dialog.returnValue === "yes" ? typed : null);
    });
  });
}

/** Ask for a close code and a reason: { code, reason } or null. `pattern` matches the codes that may be sent. */
export async function askForClose(title, codes = "1000 or 3000 to 4999", pattern = "1000|[34][0-9]{3}") {
  const typed = await ask({
    title,
    action: "Close",
    fields: [
      { name: "code", label: `Code (${codes})`, value: "1000", inputMode: "numeric", pattern, required: true, title: codes },
      { name: "reason", label: "Reason", value: "", maxLength: 120 },
    ],
  });
  return typed && { code: Number(typed.code), reason: typed.reason };
}

/** The close codes that an operator may send, in words and as a pattern. */
export const CODES = "1000 to 1014, 3000 to 4999";
export const CODE_PATTERN = "[134][0-9]{3}";

let hiding = null;

/** Show a message for five seconds. */
export function toast(text, isBad = false) {
  const line = $("toast");
  setText(line, text);
  line.classList.toggle("bad", isBad);
  line.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { line.hidden = true; }, 5000);
}
