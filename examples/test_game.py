"""Tests of game.js: ``python -m pytest examples``. No test waits: `advance` moves the clock of ticks."""

import json
import math
from pathlib import Path

import pytest

from wsthreads.testing import play

TICK_S = 0.05
SEAT_KEPT_S = 10
SPEED = 260


@pytest.fixture
def game():
    with play(Path(__file__).with_name("game.js")) as game:
        yield game


def steer(client, x, y):
    client.send(json.dumps({"x": x, "y": y}))


def state_for(game, client, seconds=TICK_S):
    """The last state that the client has received, when the clock has moved."""
    game.advance(seconds)
    return client.take_json()[-1]


def names(state):
    return [player["name"] for player in state["players"]]


def player_of(state, name):
    (player,) = [player for player in state["players"] if player["name"] == name]
    return player


def test_four_play_and_the_fifth_watches(game):
    players = [game.connect(user=name, room="garden") for name in ("ann", "bob", "cid", "dan", "eve")]
    state = state_for(game, players[4])
    assert names(state) == ["ann", "bob", "cid", "dan"]
    assert [player["seat"] for player in state["players"]] == [0, 1, 2, 3]
    assert names(state_for(game, game.connect(user="eve", room="cellar"))) == ["eve"]


def test_a_second_is_twenty_states_which_all_clients_receive(game):
    ann, bob = game.connect(user="ann"), game.connect(user="bob")
    game.advance(TICK_S)
    ann.take(), bob.take()
    game.advance(1)
    states = ann.take_json()
    assert len(states) == 20
    assert states == bob.take_json()
    ticks = [state["tick"] for state in states]
    assert ticks == list(range(ticks[0], ticks[0] + 20))
    assert len({state["owner"] for state in states}) == 1


def test_a_player_goes_where_the_player_steers_and_stops_at_the_edge(game):
    ann = game.connect(user="ann")
    before = player_of(state_for(game, ann), "ann")
    steer(ann, 1, 0)
    after = player_of(state_for(game, ann), "ann")
    assert after["x"] == pytest.approx(min(before["x"] + SPEED * TICK_S, 578), abs=1)
    assert after["y"] == before["y"]
    at_the_edge = player_of(state_for(game, ann, 3), "ann")
    assert at_the_edge["x"] == 578
    steer(ann, 0, 0)
    game.advance(TICK_S)
    assert player_of(state_for(game, ann, 1), "ann") == at_the_edge


@pytest.mark.parametrize("x", [9, 1e308, -0.5, None, "1", [1]])
def test_no_player_is_faster_than_the_others_whatever_the_client_sends(game, x):
    ann = game.connect(user="ann")
    before = player_of(state_for(game, ann), "ann")
    steer(ann, x, x)
    after = player_of(state_for(game, ann), "ann")
    assert math.hypot(after["x"] - before["x"], after["y"] - before["y"]) < SPEED * TICK_S + 2


def catch(game, client, state, name):
    """Steer a player to the coin, until there is another one. Then stop: the next coin may lie on the way."""
    coin = state["coin"]
    while state["coin"] == coin:
        player = player_of(state, name)
        x, y = coin["x"] - player["x"], coin["y"] - player["y"]
        length = max(math.hypot(x, y), 1)
        steer(client, x / length, y / length)
        state = state_for(game, client)
    steer(client, 0, 0)
    return state


def test_ten_coins_win_and_a_new_round_begins(game):
    ann = game.connect(user="ann")
    state = state_for(game, ann)
    for coins in range(1, 11):
        state = catch(game, ann, state, "ann")
        assert player_of(state, "ann")["coins"] == coins
    assert state["winner"] == "ann"
    state = state_for(game, ann, 4)
    assert state["winner"] == "ann"
    state = state_for(game, ann, 1.1)
    assert state["winner"] is None
    assert player_of(state, "ann")["coins"] == 0


def test_a_seat_is_kept_for_ten_seconds(game):
    ann, _, _, _, eve = [game.connect(user=name) for name in ("ann", "bob", "cid", "dan", "eve")]
    catch(game, ann, state_for(game, ann), "ann")
    ann.lose()
    state = state_for(game, eve, SEAT_KEPT_S - 1)
    assert (player_of(state, "ann")["isHere"], player_of(state, "ann")["coins"]) == (False, 1)
    steer(eve, 1, 0)
    assert "eve" not in names(state_for(game, eve))
    ann = game.connect(user="ann")
    state = state_for(game, ann, SEAT_KEPT_S + 2)
    assert (player_of(state, "ann")["isHere"], player_of(state, "ann")["coins"]) == (True, 1)
    ann.lose()
    assert "ann" not in names(state_for(game, eve, SEAT_KEPT_S + 2))
    steer(eve, 1, 0)
    assert player_of(state_for(game, eve), "eve")["seat"] == 0


def test_a_room_goes_on_after_its_last_player_has_come_back(game):
    ann = game.connect(user="ann")
    state = catch(game, ann, state_for(game, ann), "ann")
    ann.lose()
    game.advance(5)
    later = state_for(game, game.connect(user="ann"))
    assert player_of(later, "ann")["coins"] == 1
    assert later["owner"] > state["owner"]


def test_a_reload_of_the_script_goes_on_with_the_game(game):
    ann = game.connect(user="ann")
    catch(game, ann, state_for(game, ann), "ann")
    game.advance(1)  # it is saved once a second
    ann.take()
    game.reload()
    assert player_of(state_for(game, ann), "ann")["coins"] == 1
