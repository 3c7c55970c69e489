// One tab stop for a group of controls. Arrow keys, Home and End move inside the group (ARIA's "roving tabindex").

/**
 * `selector` finds the controls in `container`; they may change. With `horizontal`, the left and right keys move
 * instead of up and down. `onMove` is called with the newly focused control. Returns a function to call after controls
 * have changed.
 */
export function rove(container, selector, { horizontal = false, onMove = () => {} } = {}) {
  const [back, forth] = horizontal ? ["ArrowLeft", "ArrowRight"] : ["ArrowUp", "ArrowDown"];
  const controls = () => Array.from(container.querySelectorAll(selector)).filter((control) => !control.hidden);
  let current = null;

  const refresh = () => {
    const all = controls();
    if (!all.includes(current)) current = all.find((control) => control.matches("[aria-selected=true]")) ?? all[0] ?? null;
    for (const control of all) control.tabIndex = control === current ? 0 : -1;
  };

  container.addEventListener("focusin", ({ target }) => {
    const control = target.closest(selector);
    if (!control || control === current) return;
    current = control;
    refresh();
  });
  container.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !event.target.closest(selector)) return;
    const all = controls();
    const at = all.indexOf(event.target.closest(selector));
    const to = { [back]: at - 1, [forth]: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = all[horizontal ? (to + all.length) % all.length : Math.min(Math.max(to, 0), all.length - 1)];
    next.focus();
    onMove(next);
  });
  refresh();
  return refresh;
}
