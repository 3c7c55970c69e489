"""The pure state of who is there, against a naive oracle and against the laws of those who are told."""

import random
from dataclasses import asdict
from itertools import count

import pytest

from wsthreads.errors import PresenceError
from wsthreads.rooms.presence import Entry, JSONText, Person, Presence, person_key, persons_of, presence_json

USERS = ["ann", "A0", None]  # the second as the id of a session
VALUES = ['"here"', '"away"', "null", '{"typing":true}']
LATE = 1e9


def reporting():
    state = Presence()
    state.begin_reports()
    return state


class Room:
    """A `Presence` with a short way to say what happens. Versions grow by themselves."""

    def __init__(self, reports=True):
        self.state = reporting() if reports else Presence()
        self.version = 0

    def set(self, session_id, value, user=None, lost_until=None):
        self.version += 1
        old = self.state.entry(session_id)
        since = self.state.since(person_key(session_id, user), self.version) if old is None else old.since
        entry = Entry(session_id, user, since, value, self.version, self.version, lost_until)
        assert self.state.apply_set(entry)
        return entry

    def lose(self, session_id, until):
        self.version += 1
        entry = self.state.entry(session_id)._replace(version=self.version, lost_until=until)
        assert self.state.apply_set(entry)

    def end(self, session_id):
        self.version += 1
        assert self.state.apply_gone(session_id, self.version)

    def told(self):
        """(joined, left, changed) as {key: value}, or None."""
        changes = self.state.take_changes()
        self.state._check()
        if changes is None:
            return None
        return tuple(
            {person.key: person.presence for person in some} for some in (changes.joined, changes.left, changes.changed)
        )

    def persons(self):
        return [(person.key, person.presence, person.sessions) for person in self.state.persons()]


def test_a_second_tab_is_no_join_and_its_end_no_leave():
    room = Room()
    room.set("a1", "1", "ann")
    assert room.told() == ({"ann": 1}, {}, {})
    room.set("a2", "1", "ann")
    assert room.told() is None
    assert room.persons() == [("ann", 1, 2)]
    room.end("a1")
    assert room.told() is None
    assert room.persons() == [("ann", 1, 1)]
    room.end("a2")
    assert room.told() == ({}, {"ann": 1}, {})
    assert room.persons() == []
    assert room.state.is_empty


def test_a_session_without_a_user_is_a_person_of_its_own():
    room = Room()
    room.set("s1", "1")
    room.set("s2", "2")
    assert room.told() == ({"s1": 1, "s2": 2}, {}, {})
    assert [person.user for person in room.state.persons()] == [None, None]


def test_a_join_and_a_leave_between_two_reports_cancel():
    room = Room()
    room.set("s1", "1")
    room.end("s1")
    assert room.told() is None
    assert room.state.is_empty


@pytest.mark.parametrize(("value", "told"), [("1", None), ("2", ({}, {}, {"ann": 2}))])
def test_a_leave_and_a_join_between_two_reports_are_nothing_or_a_change_and_the_person_keeps_the_place(value, told):
    room = Room()
    room.set("a1", "1", "ann")
    room.set("b1", "1", "bob")
    room.told()
    room.end("a1")
    room.set("a2", value, "ann")
    assert room.told() == told
    assert [person.key for person in room.state.persons()] == ["ann", "bob"]


def test_the_last_value_before_a_leave_is_told_with_it():
    room = Room()
    room.set("a1", "1", "ann")
    room.told()
    room.set("a1", "2", "ann")
    room.end("a1")
    assert room.told() == ({}, {"ann": 2}, {})


def test_a_value_that_changes_back_between_two_reports_is_nothing():
    room = Room()
    room.set("a1", "1")
    room.told()
    room.set("a1", "2")
    room.set("a1", "1")
    assert room.told() is None


def test_the_value_set_last_is_the_persons_and_a_lost_connection_sets_none():
    room = Room()
    room.set("a1", "1", "ann")
    room.set("a2", "2", "ann")
    room.lose("a1", until=10)
    assert room.persons() == [("ann", 2, 1)]
    room.end("a2")
    assert room.persons() == [("ann", 1, 0)]


class Page:
    """Keeps a list as a page does: from `show`, then by the reports. It takes `joined` and `changed` alike."""

    def __init__(self, state):
        self.persons = {person.key: person for person in persons_of(state.show())}

    def take(self, changes):
        self.persons.update({person.key: person for person in changes.joined + changes.changed})
        for person in changes.left:
            self.persons.pop(person.key, None)

    def values(self):
        return {key: person.presence for key, person in self.persons.items()}


@pytest.mark.parametrize("seed", range(200))
def test_a_list_that_was_taken_at_any_time_is_right_after_each_report(seed):
    chance, state, versions = random.Random(seed), reporting(), count(1)
    pages, there = [], {}
    for _ in range(60):
        session_id = chance.choice("abc")
        if there.get(session_id) and chance.random() < 0.4:
            state.apply_gone(session_id, next(versions))
            there[session_id] = False
        else:
            version = next(versions)
            user = {"a": "ann", "b": "ann", "c": None}[session_id]
            state.apply_set(Entry(session_id, user, 1.0, str(chance.randrange(2)), version, version))
            there[session_id] = True
        if chance.random() < 0.3:
            pages.append(Page(state))
        state._check()
        if chance.random() < 0.3:
            changes = state.take_changes()
            for page in pages:
                if changes is not None:
                    page.take(changes)
                assert page.values() == {person.key: person.presence for person in state.persons()}
            state._check()


def test_a_join_and_a_leave_cancel_though_the_session_has_read_the_list():
    state = reporting()
    state.apply_set(Entry("s1", "ann", 1.0, "1", 1, 1))
    assert [entry.user for entry in state.show("s1")] == ["ann"]
    state.apply_gone("s1", 2)
    assert state.take_changes() is None
    state.apply_set(Entry("s2", "ann", 1.0, "1", 3, 3))
    state.show("s2")
    state.show("s3")
    state.apply_gone("s2", 4)
    assert [person.key for person in state.take_changes().left] == ["ann"]


def test_what_lists_have_shown_takes_little_memory_until_the_next_report():
    state, versions = reporting(), count(1)
    for value in range(100):
        version = next(versions)
        state.apply_set(Entry("s1", "ann", 1.0, str(value), version, version))
        state.show()
    assert sum(map(len, state._shown.values())) <= 3
    assert [person.presence for person in state.take_changes().joined] == [99]


def test_somebody_whose_connection_is_lost_stays_until_the_time_is_over():
    room = Room()
    room.set("a1", "1", "ann")
    room.told()
    room.lose("a1", until=10)
    assert room.told() is None
    assert room.state.next_lapse() == 10
    assert room.state.lapsed(9.9) == []
    assert [entry.session_id for entry in room.state.lapsed(10)] == ["a1"]
    room.set("a2", "1", "ann")  # as after a reload
    room.end("a1")
    assert room.told() is None
    assert room.state.next_lapse() is None


def test_since_is_when_the_person_came_whichever_tabs_are_left():
    room = Room()
    first = room.set("a1", "1", "ann").since
    room.set("b1", "1", "bob")
    room.set("a2", "1", "ann")
    room.end("a1")
    assert next((person.key, person.since) for person in room.state.persons()) == ("ann", first)


def test_without_reports_nothing_is_kept_for_them():
    room = Room(reports=False)
    for number in range(100):
        room.set(f"s{number}", "1")
        room.end(f"s{number}")
    room.state._check()
    assert room.state.is_empty
    assert not room.state.has_changes


def test_whoever_is_there_when_reports_begin_has_been_reported():
    room = Room(reports=False)
    room.set("a1", "1")
    assert room.told() is None
    room.state.begin_reports()
    room.set("b1", "1")
    room.state.begin_reports()
    assert room.told() == ({"b1": 1}, {}, {})
    room.end("a1")
    assert room.told() == ({}, {"a1": 1}, {})


def test_a_version_that_is_gone_is_remembered_as_long_as_one_says():
    state = reporting()
    state.apply_gone("s1", 5, remember_until=10)
    for version in (4, 5):  # 5: one that was removed for its process, which has died
        assert not state.apply_set(Entry("s1", None, 1.0, "1", version, version))
    assert not state.is_empty
    state.forget(10)
    assert state.is_empty


def test_a_user_named_like_a_session_is_another_person():
    room = Room()
    room.set("s1", "1")
    room.set("a1", "2", "s1")
    assert [(person.key, person.user, person.presence) for person in room.state.persons()] == [
        ("s1", None, 1),
        ("s1", "s1", 2),
    ]
    room.end("a1")
    room.state._check()
    assert room.persons() == [("s1", 1, 1)]


def test_the_lost_sessions_of_a_person_are_those_of_one_process():
    room = Room()
    for session_id in ("a1", "a2", "b1"):
        room.set(session_id, "1", {"a": "ann", "b": "bob"}[session_id[0]])
    ann = person_key("", "ann")
    assert room.state.lost(ann) == []
    room.lose("a1", until=10)
    room.lose("b1", until=10)
    assert [entry.session_id for entry in room.state.lost(ann)] == ["a1"]
    assert room.state.lost(ann, "other") == []
    assert room.state.is_alive(ann)
    room.lose("a2", until=10)
    assert not room.state.is_alive(ann)
    assert room.state.lost("ann") == []


def test_a_session_keeps_its_user():
    state = reporting()
    assert state.apply_set(Entry("s1", "ann", 1.0, "1", 1, 1))
    assert not state.apply_set(Entry("s1", "bob", 1.0, "1", 2, 2))
    state._check()


def test_values_are_copies():
    state = reporting()
    state.apply_set(Entry("s1", None, 1.0, '{"a":[]}', 1, 1))
    state.persons()[0].presence["a"].append(1)
    assert state.persons() == [Person("s1", None, {"a": []}, 1.0, 1)]
    changes = state.take_changes()
    assert changes.as_dict() == asdict(changes)
    assert changes.as_dict() == {
        "joined": [{"key": "s1", "user": None, "presence": {"a": []}, "since": 1.0, "sessions": 1}],
        "left": [],
        "changed": [],
    }


@pytest.mark.parametrize("value", [None, True, 1.5, "é\ud800", [1, {"a": None}], {"1": "x"}, "[" * 99, '"' + "{" * 99])
def test_any_json_value_will_do(value):
    state = Presence()
    state.apply_set(Entry("s1", None, 1.0, presence_json(value, 1024), 1, 1))
    assert state.persons()[0].presence == value


class Broken:
    def __repr__(self):
        raise RuntimeError


def _deep(depth):
    return [_deep(depth - 1)] if depth else 1


def _nested():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "a presence value must be JSON, not {1, 2}"),
        (float("nan"), "not nan"),
        (b"x", "not b'x'"),
        (Broken(), "not Broken"),
        (_nested(), "JSON"),
        (_deep(65), "64 arrays and objects inside each other, not 65"),
        (JSONText("[" * 500 + "]" * 500), "64 arrays and objects inside each other, not 500"),
        (JSONText("[" * 40 + '{"a\\"[":' * 30 + "1" + "}" * 30 + "]" * 40), "not 70"),
        ("é" * 512, r"1026 bytes as JSON; max_presence_bytes allows at most 1024"),
    ],
)
def test_what_is_no_json_or_too_long_is_an_error_that_names_it(value, words):
    with pytest.raises(PresenceError, match=words):
        presence_json(value, 1024)


def test_a_value_of_just_the_limit_is_taken():
    assert presence_json("é" * 511, 1024) == '"' + "é" * 511 + '"'


# What random histories come to. A message is an Entry, or (session id, version) for one that is gone.


class Process:
    """The owner of some sessions: makes their messages, with growing versions, as the roster of a process does."""

    def __init__(self, name, chance, clock):
        self.name, self.chance, self.clock = name, chance, clock
        self.sessions = {f"{name}{number}": chance.choice(USERS) for number in range(4)}
        self.state = reporting()
        self.sent = []

    def act(self):
        """Something happens to one of its sessions; the message, or None."""
        chance, now = self.chance, next(self.clock)
        session_id, user = chance.choice(list(self.sessions.items()))
        entry = self.state.entry(session_id)
        if entry is None or chance.random() < 0.3:
            since = self.state.since(person_key(session_id, user), float(now)) if entry is None else entry.since
            message = Entry(session_id, user, since, chance.choice(VALUES), now, now, process=self.name)
        elif chance.random() < 0.4:
            message = entry._replace(version=now, lost_until=now + 20.0)
        else:
            message = (session_id, now)
        self.sent.append(message)
        return message


def apply(state, message, **options):
    if isinstance(message, Entry):
        state.apply_set(message)
    else:
        state.apply_gone(*message, **options)


class Oracle:
    """The same by looking at everything that has ever come, each time."""

    def __init__(self):
        self.newest = {}  # session id -> the message with the highest version
        self.told = {}
        self.last = {}  # key -> the value while the person was there

    def apply(self, message):
        session_id, version = message[0], message.version if isinstance(message, Entry) else message[1]
        old = self.newest.get(session_id)
        if old is None or version > (old.version if isinstance(old, Entry) else old[1]):
            self.newest[session_id] = message
        self.last.update({key: value for key, (value, _, _) in self.persons().items()})

    def persons(self):
        """key -> (value, since, sessions)."""
        entries = [message for message in self.newest.values() if isinstance(message, Entry)]
        found = {}
        for key in set(map(key_of, entries)):
            own = sorted((entry for entry in entries if key_of(entry) == key), key=lambda entry: entry.set_at)
            alive = [entry for entry in own if entry.lost_until is None]
            found[key] = own[-1].value, min(entry.since for entry in own), len(alive)
        return found

    def changes(self):
        now = {key: value for key, (value, _, _) in self.persons().items()}
        before, self.told = self.told, now
        joined = {key: value for key, value in now.items() if key not in before}
        left = {key: self.last[key] for key in before if key not in now}
        changed = {key: value for key, value in now.items() if key in before and before[key] != value}
        return joined, left, changed


def key_of(entry):
    return entry.user or entry.session_id, entry.user


def who(person):
    return person.key, person.user


def as_texts(persons):
    return {who(person): presence_json(person.presence, 1024) for person in persons}


class Told:
    """A member who is told of changes, and nothing else."""

    def __init__(self):
        self.there = {}

    def hear(self, changes):
        for person in changes.joined:
            assert who(person) not in self.there, f"{person.key} joined twice"
            self.there[who(person)] = person.presence
        for person in changes.changed:
            assert who(person) in self.there, f"{person.key} changed and was not there"
            assert self.there[who(person)] != person.presence, "changed to the same"
            self.there[who(person)] = person.presence
        for person in changes.left:
            assert who(person) in self.there, f"{person.key} left and was not there"
            del self.there[who(person)]


def listed(state):
    """Everything that all processes must agree on."""
    return state.persons()


def interleaved(chance, processes):
    """All messages, each process's in its order; now and then one comes twice."""
    queues = [list(process.sent) for process in processes]
    while any(queues):
        queue = chance.choice([queue for queue in queues if queue])
        message = queue.pop(0)
        yield message
        if chance.random() < 0.1:
            yield message


@pytest.mark.parametrize("block", range(8))
def test_random_histories_come_to_what_the_oracle_says(block):
    for seed in range(block * 400, block * 400 + 400):
        try:
            _run_history(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def _run_history(seed):
    chance = random.Random(seed)
    clock = iter(range(1, 10**6))
    processes = [Process(name, chance, clock) for name in "ABC"[: chance.randint(1, 3)]]
    observer, oracle, told = processes[0].state, Oracle(), Told()
    delivered = {process.name: 0 for process in processes}
    for _ in range(chance.randint(5, 60)):
        process = chance.choice(processes)
        message = process.act()
        apply(process.state, message)
        if process is processes[0]:
            oracle.apply(message)
        # Each process hears some of what the others have sent, in each sender's order.
        for other in processes[1:]:
            while delivered[other.name] < len(other.sent) and chance.random() < 0.7:
                message = other.sent[delivered[other.name]]
                delivered[other.name] += 1
                for _ in range(chance.choice((1, 1, 2))):
                    apply(observer, message)
                    oracle.apply(message)
            for third in processes:
                if third is not other and third.sent and chance.random() < 0.3:
                    apply(other.state, third.sent[-1])
        if chance.random() < 0.4:
            _compare_reports(observer, oracle, told)
        observer._check()
        lost = {entry.session_id for entry in observer.entries() if entry.lost_until is not None}
        now = next(clock)
        assert {entry.session_id for entry in observer.lapsed(now)} == {
            session_id for session_id in lost if observer.entry(session_id).lost_until <= now
        }
    for other in processes[1:]:
        for message in other.sent[delivered[other.name] :]:
            apply(observer, message)
            oracle.apply(message)
    _compare_reports(observer, oracle, told)
    persons = {who(person): (presence_json(person.presence, 1024), person.since, person.sessions)
               for person in observer.persons()}  # fmt: skip
    assert persons == oracle.persons()
    assert told.there == {who(person): person.presence for person in observer.persons()}, "told of another list"
    _check_that_all_agree(chance, processes, observer)


def _compare_reports(observer, oracle, told):
    changes, expected = observer.take_changes(), oracle.changes()
    if changes is None:
        assert expected == ({}, {}, {})
        return
    assert (as_texts(changes.joined), as_texts(changes.left), as_texts(changes.changed)) == expected
    assert any(expected), "a call with nothing to report"
    for some in (changes.joined, changes.left, changes.changed):
        assert some == sorted(some, key=lambda person: (person.since, person.key))
    told.hear(changes)


def _check_that_all_agree(chance, processes, observer):
    for _ in range(2):
        other = Presence()
        for message in interleaved(chance, processes):
            apply(other, message)
        assert listed(other) == listed(observer), "the same messages, another order of the processes"
    everything = [message for process in processes for message in process.sent] * 2
    chance.shuffle(everything)
    other = Presence()
    for message in everything:
        apply(other, message, remember_until=LATE)
        other._check()
    assert listed(other) == listed(observer), "the same messages in any order"
    other.forget(LATE)
    assert listed(other) == listed(observer)
    for entry in other.entries():
        other.apply_gone(entry.session_id, entry.version)
    assert other.is_empty
