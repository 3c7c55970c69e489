// A history of sent messages. The arrow keys bring them back, as in a shell. All connections of this page share it.

const KEPT = 100;

const sent = [];

export function remember(text) {
  if (text === "" || sent.at(-1) === text) return;
  sent.push(text);
  sent.splice(0, sent.length - KEPT);
}

/** Add the history to a text field: up in the first line goes back, down in the last line forward. */
export function giveHistory(field) {
  let at = null; // the index of the shown message; null: none
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
