// A server that speaks wsthreads.1, and a network that cuts, in the page itself. The server is written from
// docs/reference/protocol.rst and shares nothing with wsthreads.js. test_browser_sessions.py runs it.

const SUBPROTOCOL = "wsthreads.1";
const DLE = "\x10";
const [HEARTBEAT_MS, TIMEOUT_MS, RESUME_MS] = [25_000, 20_000, 60_000];

function assert(condition, text) {
  if (!condition) throw new Error(text);
}

// A connection: two queues of what is on its way. Nothing arrives by itself.
class Link {
  up = [];
  down = [];
  isDead = false;  // nothing arrives any more
  isKnownTo = { client: false, server: false };  // that it is dead
  session = null;
  hasGreeted = false;

  constructor(world, socket, protocols) {
    Object.assign(this, { world, socket, protocols });
    world.links.push(this);
    this.down.push({ open: true });
  }

  deliverUp() {
    const item = this.up.shift();
    if (this.isKnownTo.server) return;
    if (item.close) {
      this.down.push({ close: item.close });
      this.isKnownTo.server = true;
      this.world.server.closed(this, item.close[0]);
    } else {
      this.world.server.take(this, item.message);
    }
  }

  deliverDown() {
    const item = this.down.shift();
    const { socket } = this;
    if (socket.readyState === 3) return;
    if (item.open) {
      if (socket.readyState !== 0) return;
      socket.protocol = SUBPROTOCOL;
      socket.readyState = 1;
      socket.onopen();
    } else if (item.close) {
      this.end(...item.close);
    } else if (socket.readyState < 3) {
      if (socket.readyState === 1 && item.message.startsWith(`${DLE}w`)) this.world.welcomed(this.session);
      socket.onmessage({ data: item.message, origin: "" });
    }
  }

  end(code, reason = "") {
    this.isKnownTo.client = true;
    this.socket.readyState = 3;
    this.socket.onclose({ code, reason, wasClean: code !== 1006 });
  }

  // What is on its way is lost. Who does not notice it goes on sending.
  cut({ client = true, server = true } = {}) {
    this.isDead = true;
    this.up.length = this.down.length = 0;
    if (server && !this.isKnownTo.server) { this.isKnownTo.server = true; this.world.server.closed(this, 1006); }
    if (client && !this.isKnownTo.client) this.end(1006);
  }
}

class Server {
  sessions = new Map();
  lastId = 0;
  lastSecret = 0;

  constructor(world) {
    this.world = world;
  }

  write(link, message) {
    if (link && !link.isDead && !link.isKnownTo.server) link.down.push({ message });
  }

  violated(link, text) {
    if (this.world.isHostile) { link.cut(); return; }
    throw new Error(`the client broke the protocol: ${text}`);
  }

  take(link, message) {
    if (!link.hasGreeted) {
      assert(typeof message === "string" && message.startsWith(`${DLE}h`), "no hello");
      this.greet(link, JSON.parse(message.slice(2)).resume);
      return;
    }
    const { session } = link;
    if (session.link !== link) return;  // superseded
    const control = typeof message === "string" ? /^\x10([ap])(\d+)$/.exec(message) : null;
    if (control) {
      this.acknowledged(session, Number(control[2]));
      if (control[1] === "p") this.write(link, `${DLE}a${session.received}`);
      return;
    }
    session.received++;
    this.world.serverTakes(session, message);
    if (++session.due === 64) { session.due = 0; this.write(link, `${DLE}a${session.received}`); }
  }

  greet(link, resume) {
    link.hasGreeted = true;
    const [id, secret] = resume ? resume.token.split(".") : [];
    let session = this.sessions.get(id);
    const isResumed = session !== undefined && session.secrets.includes(Number(secret));
    if (isResumed) {
      session.secrets = session.secrets.slice(session.secrets.indexOf(Number(secret)));
      if (session.link) { session.link.isKnownTo.server = true; session.link.down.push({ close: [1006] }); }
      this.acknowledged(session, resume.received);
    } else {
      session = { id: `${++this.lastId}`, secrets: [], received: 0, acknowledged: 0, kept: [], due: 0, asked: 0, answers: new Set(), got: [], heard: [], sent: 0 };
      this.sessions.set(session.id, session);
      this.world.fresh(session);
    }
    session.link = link;
    link.session = session;
    session.secrets.push(++this.lastSecret);
    this.write(link, DLE + "w" + JSON.stringify({
      resumed: isResumed, token: `${session.id}.${this.lastSecret}`, received: session.received, resumeMs: RESUME_MS,
      heartbeatMs: HEARTBEAT_MS, timeoutMs: TIMEOUT_MS, protocol: null, ...(resume && !isResumed && { why: "unknown" }),
    }));
    for (const message of session.kept) this.write(link, message);
  }

  acknowledged(session, count) {
    const more = count - session.acknowledged;
    assert(more >= 0 && more <= session.kept.length, `acknowledged ${count}, impossible`);
    session.kept.splice(0, more);
    session.acknowledged = count;
  }

  send(session, message) {
    session.kept.push(message);
    this.write(session.link, message);
  }

  closed(link, code) {
    const { session } = link;
    if (session?.link !== link) return;
    session.link = null;
    if (code !== 1006 && code !== 1001 && code !== 4901) this.sessions.delete(session.id);
  }

  // The window is over, or the process was killed.
  forget() {
    for (const session of this.sessions.values()) session.link?.cut();
    this.sessions.clear();
  }
}

// A client, a server and a clock. Each side sends c1, c2 … and s1, s2 …; every third message is a request.
class World {
  links = [];
  timers = new Map();
  lastTimer = 0;
  now = 1.8e12;
  heard = [];
  events = [];
  replies = [];
  sessions = [];
  sentByClient = 0;

  constructor(ReconnectingWebSocket, { renews = false, ...options } = {}) {
    const world = this;
    this.server = new Server(this);
    class Fake {
      readyState = 0;
      protocol = "";
      bufferedAmount = 0;
      constructor(url, protocols) { this.link = new Link(world, this, protocols); }
      send(message) { if (this.readyState === 1 && !this.link.isDead) this.link.up.push({ message }); }
      close(code = 1005, reason = "") {
        if (this.readyState >= 2) return;
        const wasOpen = this.readyState === 1;
        this.readyState = 2;
        if (!wasOpen) this.link.cut();
        else if (!this.link.isDead) this.link.up.push({ close: [code, reason] });
      }
    }
    const renewed = () => ({ url: "ws://fake/", expiresAt: this.now + 70_000 });  // every 40 s
    this.socket = new ReconnectingWebSocket(renews ? renewed : "ws://fake/", [], {
      plain: false, WebSocket: Fake, now: () => this.now, random: () => 0.5,
      setTimeout: (callback, delay) => this.setTimeout(callback, delay),
      clearTimeout: (id) => this.timers.delete(id),
      ...options,
    });
    this.socket.onmessage = ({ data }) => this.clientTakes(data);
    this.socket.onrequest = async ({ data }) => {
      this.clientTakes(data);
      if (data.endsWith("6")) await new Promise((resolve) => this.setTimeout(resolve, 5000));
      return `reply to ${data}`;
    };
    this.socket.onopen = ({ lost }) => this.events.push(["open", lost]);
    for (const type of ["resumed", "reconnecting", "close"]) this.socket.addEventListener(type, () => this.events.push([type]));
  }

  fresh(session) {
    this.newest = session;
  }

  // Whose welcome is lost has no client, and counts for nothing.
  welcomed(session) {
    if (!this.sessions.includes(session)) this.sessions.push(session);
  }

  setTimeout(callback, delay) {
    this.timers.set(++this.lastTimer, { callback, due: this.now + delay });
    return this.lastTimer;
  }

  // The program

  clientSends() {
    const name = `c${this.sentByClient + 1}`;
    if (this.sentByClient % 3 === 2) {
      const reply = { name, answer: null };
      this.socket.request(name, { timeoutMs: 1e9 }).then((answer) => { reply.answer = answer; }, ({ name }) => { reply.answer = name; });
      this.replies.push(reply);
      this.sentByClient++;
    } else if (this.socket.send(name)) {
      this.sentByClient++;
    }
  }

  serverSends() {
    const session = [this.sessions.at(-1), this.newest].find((each) => this.server.sessions.has(each?.id));
    if (session === undefined) return;
    const name = `${session.id}:${++session.sent}`;
    this.server.send(session, session.sent % 3 === 0 ? `${DLE}q${++session.asked}:${name}` : name);
  }

  serverTakes(session, message) {
    const [, kind, id, data] = /^(?:\x10([qrne])(\d+):?)?([^]*)$/.exec(message);
    if (kind === "r") {
      assert(data === `reply to ${session.id}:${3 * id}`, `${data}, where ${id} was asked`);
      assert(!session.answers.has(id), `two replies to ${id}`);
      session.answers.add(id);
      return;
    }
    session.got.push(data);
    if (kind === "q") this.server.send(session, `${DLE}r${id}:reply to ${data}`);
  }

  clientTakes(data) {
    const session = this.sessions.at(-1);
    assert(this.events.findLast(([type]) => type === "open") !== undefined, "a message before open");
    session.heard.push(data);
  }

  // Time

  async settle() {
    for (let n = 0; n < 12; n++) await null;
  }

  async tick(ms) {
    const until = this.now + ms;
    for (;;) {
      await this.settle();
      let first = null;
      for (const [id, timer] of this.timers) if (timer.due <= until && (first === null || timer.due < first[1].due)) first = [id, timer];
      if (first === null) break;
      this.timers.delete(first[0]);
      this.now = Math.max(this.now, first[1].due);
      first[1].callback();
    }
    this.now = until;
  }

  // Deliver the first thing on its way, oldest connection first, upwards first. False if there is none.
  deliverNext() {
    for (const link of this.links) {
      if (link.up.length > 0) { link.deliverUp(); return true; }
      if (link.down.length > 0) { link.deliverDown(); return true; }
    }
    return false;
  }

  // Let everything arrive, over as many reconnects as it takes: longer than both sides need to notice a dead connection.
  async finish() {
    for (let waits = 0, deliveries = 0; waits < 20; waits++) {
      for (let isBusy = true; isBusy; assert(++deliveries < 10_000, "it never ends")) {
        await this.settle();
        isBusy = this.deliverNext();
      }
      await this.tick(10_000);
    }
  }

  // Every number once and in order, in both directions, and every request answered.
  check(isOneSession) {
    const got = this.sessions.flatMap((session) => session.got);
    const numbers = got.map((name) => Number(name.slice(1)));
    assert(numbers.every((number, index) => index === 0 || number > numbers[index - 1]), `out of order or twice: ${got}`);
    for (const session of this.sessions) {
      assert(session.heard.every((name, index) => name === `${session.id}:${index + 1}`), `the page heard ${session.heard}`);
    }
    const session = this.sessions.at(-1);
    assert(this.server.sessions.has(session.id) && session.link?.socket.readyState === 1, "not connected at the end");
    assert(session.heard.length === session.sent, `the page heard ${session.heard.length} of ${session.sent}`);
    assert(session.answers.size === Math.floor(session.sent / 3), `${session.answers.size} replies of the page`);
    const opens = this.events.filter(([type]) => type === "open");
    if (isOneSession) {
      assert(this.sessions.length === 1 && opens.length === 1, `${this.sessions.length} sessions, ${opens.length} open`);
      assert(numbers.length === this.sentByClient, `the server got ${numbers.length} of ${this.sentByClient}`);
      assert(this.replies.every(({ name, answer }) => answer === `reply to ${name}`), JSON.stringify(this.replies));
    }
    const told = opens.reduce((sum, [, lost]) => sum + lost, 0);
    const failed = this.replies.filter(({ answer }) => answer === "SessionClosed").length;
    assert(numbers.length + told + failed >= this.sentByClient, `the page was told of ${told} lost messages, not more`);
    assert(this.replies.every(({ answer }) => answer !== null), "a request that never ends");
    assert(session.kept.length <= 1024, `${session.kept.length} are kept at the end`);
  }
}

const CUTS = {
  both: (link) => link.cut(),
  "the client alone notices": (link) => link.cut({ server: false }),
  "the server alone notices": (link) => link.cut({ client: false }),
  nobody: (link) => link.cut({ client: false, server: false }),
};

// A fixed exchange. `cuts` are the numbers of deliveries after which the newest connection is cut.
async function exchange(ReconnectingWebSocket, cuts, kind) {
  const world = new World(ReconnectingWebSocket);
  await world.settle();
  let deliveries = 0;
  const step = async () => {
    if (cuts.includes(deliveries)) CUTS[kind](world.links.at(-1));
    deliveries++;
    await world.settle();
    const hasMore = world.deliverNext();
    await world.settle();
    return hasMore;
  };
  for (let n = 0; n < 6; n++) {
    world.clientSends();
    for (let m = 0; m < 3; m++) if (!(await step())) await world.tick(1000);
    world.serverSends();
  }
  while (deliveries <= Math.max(...cuts) + 1) if (!(await step())) await world.tick(10_000);
  await world.finish();
  world.check(true);
  world.socket.close();
  return deliveries;
}

// The exchange, cut after every delivery, and after every pair of deliveries.
globalThis.cutEverywhere = async (ReconnectingWebSocket, last) => {
  let count = 0;
  for (const kind of Object.keys(CUTS)) {
    for (let first = 0; first <= last; first++) {
      for (const second of [Infinity, ...Array.from({ length: last }, (_, n) => first + n + 1)]) {
        const cuts = [first, second].filter((cut) => cut < Infinity);
        try {
          await exchange(ReconnectingWebSocket, cuts, kind);
        } catch (error) {
          throw new Error(`cut after ${cuts}, ${kind}: ${error.stack}`);
        }
        count++;
      }
    }
  }
  return count;
};

// Random: sends, deliveries on any connection in any order, cuts, time, wake-ups of the page, and forgotten sessions.
globalThis.cutAtRandom = async (ReconnectingWebSocket, seed, { forgets = false, steps = 300 } = {}) => {
  const renews = seed % 2 === 0;
  let state = seed;
  const random = (below) => {  // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
  const pick = (values) => values[random(values.length)];
  const world = new World(ReconnectingWebSocket, { renews });
  const wake = [
    () => dispatchEvent(new Event("online")),
    () => document.dispatchEvent(new Event("visibilitychange")),
    () => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })),
    () => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })),
  ];
  for (let n = 0; n < steps; n++) {
    const dice = random(100);
    if (dice < 15) world.clientSends();
    else if (dice < 30) world.serverSends();
    else if (dice < 85) {
      const busy = world.links.filter(({ up, down }) => up.length + down.length > 0);
      if (busy.length > 0) {
        const link = pick(busy);
        if (link.up.length > 0 && (link.down.length === 0 || random(2))) link.deliverUp();
        else link.deliverDown();
      }
    } else if (dice < 90) {
      const alive = world.links.filter(({ isDead }) => !isDead);
      if (alive.length > 0) CUTS[pick(Object.keys(CUTS))](pick(alive));
    } else if (dice < 96) await world.tick(pick([100, 1000, 5000, 30_000]));
    else if (dice < 99 || !forgets) pick(wake)();
    else world.server.forget();
    await world.settle();
  }
  await world.finish();
  world.check(!forgets);
  world.socket.close();
  return [world.links.length, world.sessions.length, world.sentByClient, world.sessions.reduce((sum, { sent }) => sum + sent, 0)];
};
