// Builds the page: the connection, and the parts that show its data.

import { Clients } from "./client/clients.js";
import { Connection } from "./connection.js";
import { Console } from "./server/console.js";
import { makeEndpoints } from "./server/endpoints.js";
import { showFailures } from "./server/failures.js";
import { makePlots } from "./server/plots.js";
import { Rooms } from "./server/rooms.js";
import { Samples } from "./server/samples.js";
import { SessionView } from "./server/session.js";
import { Sessions } from "./server/sessions.js";
import { UserView } from "./server/user.js";
import { useHost } from "./server/workers.js";
import { showStatus } from "./status.js";
import { makeTabs } from "./tabs.js";
import { takeFromAddress } from "./token.js";
import { $ } from "./dom.js";

takeFromAddress();

const connection = new Connection();
const samples = new Samples();
const plots = makePlots(samples);
const clients = new Clients();
const endpoints = makeEndpoints((path) => {
  go("client");
  clients.prepare(path);
});

const sessionView = new SessionView(connection, {
  onRoom: (room) => lookIntoRoom(room),
  onUser: (user) => userView.choose(user),
  onChange: (id) => {
    if (id !== null && userView.isOpen) userView.choose(null);
    sessions.mark(id);
  },
});
const userView = new UserView(connection, {
  onSession: (id) => sessionView.choose(id),
  onOpen: () => sessionView.choose(null),
});
const sessions = new Sessions(connection, (id) => sessionView.choose(id));
const rooms = new Rooms(connection, {
  onSession: (id) => lookIntoSession(id),
  onUser: (user) => {
    go("sessions");
    userView.choose(user);
  },
  onMembers: (room) => {
    go("sessions");
    sessions.inRoom(room);
  },
});
const lines = new Console(connection, (id) => lookIntoSession(id));

function lookIntoSession(id) {
  go("sessions");
  sessionView.choose(id);
}

function lookIntoRoom(room) {
  go("rooms");
  rooms.choose(room);
}

let process = null;
connection.on("hello", ({ endpoints: found, subprotocols, history, pid, started, host }) => {
  useHost(host);
  const isSame = process === `${pid} ${started}`;
  process = `${pid} ${started}`;
  samples.start(history, isSame);
  endpoints.endpoints(found);
  const paths = found.map(({ path }) => path);
  for (const part of [plots, clients, sessions, rooms]) part.endpoints(paths);
  clients.offer(subprotocols);
  plots.draw();
});
connection.on("sample", (sample) => {
  samples.add(sample);
  endpoints.sample(sample);
  plots.draw();
});

showStatus(connection);
showFailures(connection);

const go = makeTabs({
  overview: plots,
  client: {},
  sessions: {
    show: () => {
      sessions.show();
      sessionView.show();
      userView.show();
    },
    hide: () => {
      sessions.hide();
      sessionView.hide();
      userView.hide();
    },
  },
  rooms,
  console: lines,
});
$("latest-show").addEventListener("click", () => go("console"));

connection.open();
