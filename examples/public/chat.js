// The chat page: joins and leaves a room, and shows what arrives from the server.

import * as compose from "./compose.js";
import { $ } from "./dom.js";
import * as entrance from "./entrance.js";
import * as log from "./log.js";
import * as people from "./people.js";
import { Talk } from "./talk.js";

let talk = null;
let isLost = false;
let isIn = false;
let countdown = null;
let unread = 0;

// Joining and leaving

function join(user, room) {
  talk?.leave();
  isLost = isIn = false;
  entrance.close(user, room);
  $("title").textContent = `# ${room}`;
  $("chat").hidden = false;
  log.clear();
  people.begin(user, compose.addressTo);
  say("Connecting …");
  showTitle();
  talk = new Talk(user, room, { onOpen, onResumed, onMessage, onWaiting, onEnd });
  compose.begin(talk);
}

function leave() {
  talk.leave();
  talk = null;
  clearInterval(countdown);
  unread = 0;
  document.title = "Chat";
  $("chat").hidden = true;
  entrance.open();
}

// The connection

function onOpen() {
  clearInterval(countdown);
  say("");
  $("send").disabled = false;
  if (isLost && isIn) log.addNote("You are back.");
  isLost = false;
}

function onResumed() {
  onOpen();
  people.setKnown();
}

function onWaiting(until) {
  $("send").disabled = true;
  if (!isLost && isIn) log.addNote("The connection was lost.");
  if (!isLost && !isIn && !talk.isPlain) findRooms(talk);
  isLost = true;
  people.setUnknown();
  clearInterval(countdown);
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    say("Not connected.", seconds > 0 ? `Trying again in ${seconds} s` : "Trying …");
  };
  tick();
  countdown = setInterval(tick, 500);
}

async function findRooms(tried) {
  if (!(await entrance.findRooms()) && talk === tried) leave();
}

function onEnd(text) {
  $("send").disabled = true;
  people.setUnknown();
  clearInterval(countdown);
  say(text);
}

function say(text, retrying = "") {
  $("status").hidden = !text;
  $("retry").hidden = !retrying;
  $("countdown").textContent = retrying; // outside the status: screen readers must not read it every second
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
}

// What arrives

function onMessage(message) {
  switch (message.type) {
    case "welcome":
      if (message.people) people.set(message.people);
      if (message.complete === false) log.addNote("Some messages may be missing.");
      if (!isIn) log.addNote(`You are in, as ${talk.me}.`);
      isIn = true;
      break;
    case "presence": {
      const { come, gone } = people.change(message);
      for (const name of come) log.addNote(`${name} has come in.`);
      for (const name of gone) log.addNote(`${name} has left.`);
      break;
    }
    case "message":
    case "private":
      showMessage(message, !talk.isPlain && message.from === talk.me); // chat.js has no users: names are not unique
      break;
    case "absent":
      log.addNote(`${message.to} is not here, and has not received: ${message.text}`);
      compose.giveBack(message.text);
      break;
    case "join": // chat.js sends this, and "leave"
      log.addNote(`${message.user} has come in.`);
      break;
    case "leave":
      log.addNote(`${message.user} has left.`);
      break;
  }
}

function showMessage(message, isOwn) {
  log.addMessage(message, isOwn, compose.addressTo);
  if (document.hidden && !isOwn) unread++;
  showTitle();
}

function showTitle() {
  document.title = (unread ? `(${unread}) ` : "") + $("title").textContent;
}

// Wiring

compose.wire((text) => {
  if (talk.isPlain) showMessage({ type: "message", from: talk.me, text, timestamp: Date.now() }, true);
});
$("leave").addEventListener("click", leave);
$("retry").addEventListener("click", () => talk?.reconnect());
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !talk) return;
  unread = 0;
  showTitle();
});

entrance.start(join);
