// Small DOM helpers. Text from clients becomes text nodes, never markup.

export const $ = (id) => document.getElementById(id);

/**
 * Create an element with properties and children. A name that is not a property of the element becomes an attribute;
 * onclick and the like become listeners. String children become text. null, undefined and false are skipped, both as
 * properties and as children.
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

/** Create an SVG element; all properties become attributes. */
export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set a text only if it differs: an unchanged text keeps its selection and costs no layout. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Set the options of a select after its first `fixed` ones. Keeps the selected value if it still exists. */
export function setOptions(select, values, fixed = 0) {
  const present = Array.from(select.options).slice(fixed).map((option) => option.value);
  if (present.length === values.length && present.every((value, index) => value === values[index])) return;
  const chosen = select.value;
  while (select.options.length > fixed) select.remove(fixed);
  select.append(...values.map((value) => new Option(value)));
  if (values.includes(chosen)) select.value = chosen;
}

/** Delay a callback until `ms` after the last of several calls. */
export function debounced(callback, ms) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, ms);
  };
}

/** Run a callback once before the next animation frame, even if it was requested several times. */
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

/** A button that copies a text to the clipboard and shows the result. */
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
    // Browsers have no clipboard API over plain HTTP from another machine. There, copying a selection still works.
    const field = make("textarea", { value: text, className: "for-readers" });
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
