// A game for four players per room, who catch coins: ws://127.0.0.1:5000/ws/game?user=ann&room=garden
// Its page is public/game. To play over three workers:
//
//   gunicorn -k wsthreads.gunicorn.ThreadWorker -w 3 --threads 100 \
//     'wsthreads:create_app("game.js", static="public", serve_client=True, redis="redis://localhost")'
//
// Each room has one owner, which is one of the processes. The owner has the game in a variable, moves the players 20
// times a second, and sends the result to all. room.post() passes the messages of players from every process to the
// owner. The owner saves the game in an attribute of the room. If the owner ends, another process continues from there.
//
// A client sends { x, y }: the direction to go, from -1 to 1. { x: 0, y: 0 } stops. A client receives:
//
//   { type: "state", owner, tick, players, coin, winner }    20 times a second; winner: a name, or null
//   { type: "again" }                                        your last message may be lost: send it again

export const tickRate = 20;

const SEATS = 4;
const SEAT_KEPT_S = 10; // for a player whose connection is lost
const SIZE = 600; // of the field; all lengths use its unit
const SPEED = 260; // per second
const PLAYER = 22; // radius
const COIN = 14;
const COINS_TO_WIN = 10;
const PAUSE_S = 5; // after somebody has won
const MAX_NAME = 20;

const games = new Map(); // by the names of the rooms that this process owns

// Clients, in every process

function nameFrom(visitor, parameter) {
  const name = (visitor.getParameter(parameter) || "").trim();
  return [...name].slice(0, MAX_NAME).join("").trim();
}

export function onHandshake(request) {
  const name = nameFrom(request, "user");
  if (!name) return { close: 4000, reason: "say who you are: ?user=ann" };
  request.setUser(name); // This demo accepts any name. A real site uses its login: docs/how-to/handshakes.rst.
}

export function onOpen(session) {
  const room = session.room(nameFrom(session, "room") || "lobby");
  session.setAttribute("room", room);
  room.join({ presence: true });
  steer(session, 0, 0); // takes a seat, or returns to it
}

export function onMessage(session, message) {
  const { x, y } = JSON.parse(message);
  steer(session, x, y);
}

function steer(session, x, y) {
  session.getAttribute("room").post({ x, y }).catch(() => session.send('{"type":"again"}'));
}

// The game, in the process that owns the room

export function onPost(room, { x, y }, from) {
  const game = gameOf(room);
  let player = game.players.find(({ name }) => name === from.user);
  if (!player && game.players.length < SEATS) {
    const seat = [0, 1, 2, 3].find((seat) => game.players.every((player) => player.seat !== seat));
    player = { name: from.user, seat, coins: 0, missingS: 0, ...freePlace(game, PLAYER) };
    game.players.push(player);
  }
  if (player) Object.assign(player, { direction: unit(x, y), missingS: 0 });
}

export function onTick(room, dt) {
  const game = gameOf(room);
  game.tick += 1;
  if (game.winner) {
    game.pauseS -= dt;
    if (game.pauseS <= 0) startRound(game);
  } else {
    for (const player of game.players) move(game, player, dt);
  }
  room.broadcast(stateOf(room, game), { latest: "state", keep: false }); // a slow client needs only the last one
  if (game.tick % tickRate === 0) {
    freeSeats(room, game);
    room.setAttribute("game", game); // once a second, because each time is a round trip to Redis
  }
}

export function onRoomEnd(room) {
  if (room.isOwner()) room.setAttribute("game", gameOf(room)); // false if another process owns the room already
  games.delete(room.getName());
}

/** The game of a room. A new owner, and a reloaded script, continue with the saved game. */
function gameOf(room) {
  const name = room.getName();
  if (!games.has(name)) {
    const fresh = { tick: 0, players: [], coin: { x: SIZE / 2, y: SIZE / 2 }, winner: null, pauseS: 0 };
    games.set(name, room.getAttribute("game") ?? fresh);
  }
  return games.get(name);
}

function move(game, player, dt) {
  const within = (value) => Math.min(Math.max(value, PLAYER), SIZE - PLAYER);
  player.x = within(player.x + player.direction.x * SPEED * dt);
  player.y = within(player.y + player.direction.y * SPEED * dt);
  if (Math.hypot(player.x - game.coin.x, player.y - game.coin.y) > PLAYER + COIN) return;
  player.coins += 1;
  game.coin = freePlace(game, COIN);
  if (player.coins < COINS_TO_WIN) return;
  game.winner = player.name;
  game.pauseS = PAUSE_S;
}

function startRound(game) {
  game.winner = null;
  for (const player of game.players) player.coins = 0;
}

/** Called once a second: a player without a session for SEAT_KEPT_S loses the seat. */
function freeSeats(room, game) {
  const here = new Set(room.presence().filter(({ sessions }) => sessions > 0).map(({ user }) => user));
  for (const player of game.players) {
    const isHere = here.has(player.name);
    player.missingS = isHere ? 0 : player.missingS + 1;
    if (!isHere) player.direction = unit(0, 0);
  }
  game.players = game.players.filter(({ missingS }) => missingS <= SEAT_KEPT_S);
}

function stateOf(room, { tick, players, coin, winner }) {
  const shown = players.map(({ name, seat, coins, missingS, x, y }) => (
    { name, seat, coins, isHere: missingS === 0, x: Math.round(x), y: Math.round(y) }
  ));
  return JSON.stringify({ type: "state", owner: room.fencingNumber, tick, players: shown, coin, winner });
}

/** A direction of length 1 at most. Clients may send anything. */
function unit(x, y) {
  if (!Number.isFinite(x) || !Number.isFinite(y)) return { x: 0, y: 0 };
  const length = Math.max(Math.hypot(x, y), 1);
  return { x: x / length, y: y / length };
}

/** A random place that is not near a player or the coin. */
function freePlace({ players, coin }, radius) {
  const random = () => Math.round(radius + Math.random() * (SIZE - 2 * radius));
  while (true) {
    const place = { x: random(), y: random() };
    if ([...players, coin].every(({ x, y }) => Math.hypot(x - place.x, y - place.y) > 100)) return place;
  }
}
