// Keeps a list of elements in step with a list of items. Rows are reused by key, and only differences are changed. So
// an update does not lose the focus, the selected text or the scroll position.

/** `create(item)` makes the element of a new key; `update(element, item)` updates it. */
export class Rows {
  #parent;
  #key;
  #create;
  #update;
  #elements = new Map();

  constructor(parent, { key, create, update }) {
    this.#parent = parent;
    this.#key = key;
    this.#create = create;
    this.#update = update;
  }

  show(items) {
    const focused = this.#parent.contains(document.activeElement) ? document.activeElement : null;
    const place = focused ? Array.from(this.#parent.children).findIndex((row) => row.contains(focused)) : -1;
    const kept = new Set(items.map(this.#key));
    for (const [key, element] of this.#elements) {
      if (kept.has(key)) continue;
      element.remove();
      this.#elements.delete(key);
    }
    let next = this.#parent.firstElementChild;
    for (const item of items) {
      const key = this.#key(item);
      let element = this.#elements.get(key);
      if (!element) this.#elements.set(key, element = this.#create(item));
      this.#update(element, item);
      if (element === next) next = next.nextElementSibling;
      else this.#parent.insertBefore(element, next);
    }
    if (focused && document.activeElement !== focused) this.#refocus(focused, place);
  }

  // A moved row gets its focus back. If the focused row was removed, the row at its place gets the focus.
  #refocus(focused, place) {
    if (focused.isConnected) {
      focused.focus({ preventScroll: true });
      return;
    }
    const rows = this.#parent.children;
    rows[Math.min(place, rows.length - 1)]?.querySelector("button, a, [tabindex]")?.focus({ preventScroll: true });
  }
}
