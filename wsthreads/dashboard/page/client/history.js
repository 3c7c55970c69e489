// What was sent before, brought back by the arrow keys as in a shell; shared by all connections of this page.

const KEPT = 100;

const sent = [];

export function remember(text) {
  if (text === "" || sent.at(-1) === text) return;
  sent.push(text);
  sent.splice(0, sent.length - KEPT);
}

/** Give a text field up and down: up in its first line goes back, down in its last line forth, at last to what was typed. */
export function giveHistory(field) {
  let at = null; // which of those sent is shown; null: none
  let typed = "";

  field.addEventListener("input", () => { at = null; });
  field.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.isComposing) return;
    const before = field.value.slice(0, field.selectionStart);
    const after = field.value.slice(field.selectionEnd);
    if (event.key === "ArrowUp" && !before.includes("\n")) {
      if (at === null) typed = field.value;
      show(event, Math.max(0, (at ?? sent.length) - 1));
    } else if (event.key === "ArrowDown" && at !== null && !after.includes("\n")) {
      show(event, at + 1);
    }
  });

  function show(event, index) {
    event.preventDefault();
    at = index < sent.length ? index : null;
    field.value = at === null ? typed : sent[at];
    field.setSelectionRange(field.value.length, field.value.length);
  }
}
