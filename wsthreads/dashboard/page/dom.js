// Small helpers for the document. Much of what this page shows comes from clients: it becomes text, never markup.

export const $ = (id) => document.getElementById(id);

/**
 * An element with properties (attributes, where the element has no such property; listeners as onclick) and children.
 * Children that are strings become text; null, undefined and false are left out, as properties and as children.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The same for SVG, where everything is an attribute. */
export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set a text where it differs: what does not change keeps its selection, and costs no layout. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Offer these values in a select, after its first `fixed` options; what was chosen stays chosen if it is there. */
export function setOptions(select, values, fixed = 0) {
  const present = Array.from(select.options).slice(fixed).map((option) => option.value);
  if (present.length === values.length && present.every((value, index) => value === values[index])) return;
  const chosen = select.value;
  while (select.options.length > fixed) select.remove(fixed);
  select.append(...values.map((value) => new Option(value)));
  if (values.includes(chosen)) select.value = chosen;
}

/** Call at most once in `ms`, after the last of several calls. */
export function debounced(callback, ms) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, ms);
  };
}

/** Call once before the next frame is drawn, however often it was asked for. */
export function onNextFrame(callback) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      callback();
    });
  };
}

/** A button that puts a text on the clipboard, and says so. */
export function copyButton(text, label = "Copy") {
  const button = make("button", { type: "button", className: "copy", textContent: label });
  button.addEventListener("click", async (event) => {
    event.stopPropagation();
    const said = (await copy(typeof text === "function" ? text() : text)) ? "Copied" : "Not copied";
    button.textContent = said;
    setTimeout(() => { button.textContent = label; }, 1500);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not over plain HTTP from another machine. Browsers still do it from a selection there.
    const field = make("textarea", { value: text, className: "for-readers" });
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
