// The field for the next message, and its recipient: the room, or one person.

import { $ } from "./dom.js";
import * as people from "./people.js";

let talk = null;
let recipient = ""; // or everybody

export function begin(newTalk) {
  talk = newTalk;
  addressTo("");
}

/** Write to one person only, or with "" to everybody. */
export function addressTo(name) {
  recipient = name;
  people.mark(name);
  $("private").hidden = !name;
  $("private-to").textContent = name && `Only to ${name}`;
  $("text").placeholder = name ? "Private message" : "Message";
  if (name) talk.stopTyping(); // nobody else needs to know
  $("text").focus();
}

/** Put a text that could not be sent back into the field, unless the field has another text. */
export function giveBack(text) {
  $("text").value ||= text;
}

/** Wire the form. `onSaid(text)` is called for each message that was sent. */
export function wire(onSaid) {
  $("compose").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    if (!text || !talk.isOpen) return; // a message that cannot be sent stays in its field
    talk.say(text, recipient);
    onSaid(text);
    $("text").value = "";
    $("text").focus();
  });
  $("text").addEventListener("input", () => {
    if ($("text").value && !recipient) talk.type();
    else talk.stopTyping();
  });
  $("compose").addEventListener("keydown", ({ key }) => {
    if (key === "Escape") addressTo("");
  });
  $("private-end").addEventListener("click", () => addressTo(""));
}
