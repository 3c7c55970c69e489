"""The threads of sessions are on one core where that is wanted, and nothing that they start stays there."""

import errno
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from unittest.mock import Mock
from urllib.request import urlopen

import pytest

from tests.programs import DEADLINE_S, PROGRAM_S, ROOT, Program, connect, receive, run_server, wait_until
from tests.wire import RawClient, endpoint, self_signed, serving
from wsthreads import WebSocketApp
from wsthreads.servers.serving import Server
from wsthreads.sessions.admission import Admission
from wsthreads.threads.affinity import INHERITED_LOOK_S, INHERITED_LOOK_SHARE, Affinity, Place, use_all_cores
from wsthreads.threads.cpu_load import is_ours, read_loads, roomier_core
from wsthreads.threads.flusher import Flusher

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux, and two cores"
)

if hasattr(os, "sched_getaffinity"):
    ALL = os.sched_getaffinity(0)

PRINT = "import os; print(*os.sched_getaffinity(0))"


def here():
    return os.sched_getaffinity(0)


def numbers(text):
    return set(map(int, text.split()))


class FakeFlusher:
    """Its timers run when the test says so."""

    def __init__(self):
        self.callbacks = []

    def call_later(self, delay_s, callback):
        if callback.func.__name__ != "_look_for_inherited":
            assert 1 <= delay_s <= 5
            self.callbacks.append(callback)

    def run(self):
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()


def busy(admission=None):
    admission = admission or Admission(10)
    admission.enter()
    return admission


def started(affinity):
    affinity.start(FakeFlusher(), busy())
    return affinity


# Which threads are kept, and when.


class Asked:
    """Does what a message names, and answers with what that gave."""

    def __init__(self, **functions):
        self.functions = functions

    def on_open(self, session):
        session.send(" ".join(map(str, here())))

    def on_message(self, session, message):
        session.send(" ".join(map(str, self.functions.get(message, here)())))


@contextmanager
def asking(**functions):
    """A function that has a kept session do something: each answer is a set of cores. And the app."""
    with endpoint(Asked(**functions), cpu_affinity=True) as (app, port), RawClient(port) as client:
        (core,) = numbers(client.receive_text())

        def ask(what):
            client.text(what)
            return numbers(client.receive_text())

        yield ask, core, app


def test_a_session_is_on_one_core_from_on_open_on():
    with asking() as (ask, core, _):
        assert core in ALL
        assert ask("place") == ask("place") == {core}


def test_all_sessions_are_on_the_same_core():
    with endpoint(Asked(), cpu_affinity=True) as (_, port), ExitStack() as stack:
        places = [stack.enter_context(RawClient(port)).receive_text() for _ in range(10)]
    assert len(set(places)) == 1


def test_a_thread_is_on_its_former_cores_after_its_stay():
    affinity = started(Affinity(wanted=True))
    with affinity.pin():
        assert here() == {affinity.place.core}
    assert here() == ALL


def test_a_thread_that_was_not_allowed_all_cores_is_not_afterwards():
    affinity = started(Affinity(wanted=True))
    (other,) = sorted(ALL - {affinity.place.core})[:1]

    def stay():
        os.sched_setaffinity(0, {other})
        with affinity.pin():
            inside = here()
        return inside, here()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stay).result(DEADLINE_S) == ({affinity.place.core}, {other})


def test_a_session_follows_when_the_core_changes():
    with asking() as (ask, core, app):
        (other,) = sorted(ALL - {core})[:1]
        app.scheduling.affinity.place = Place(other, batch=True)
        assert ask("place") == {other}
        app.scheduling.affinity.place = None
        assert ask("place") == ALL


def thread_named(name):
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
    return thread


def test_a_script_has_all_cores(tmp_path):
    (tmp_path / "echo.js").write_text("export function onMessage(session, message) { session.send(message) }")
    app = WebSocketApp(cpu_affinity=True)
    app.add_script("/ws/echo", tmp_path / "echo.js")
    with serving(app) as port, RawClient(port, "/ws/echo") as client:
        for _ in range(2):
            client.text("x")
            assert client.receive_text() == "x"
        assert app.scheduling.affinity.place.core in ALL
        wait_until(lambda: os.sched_getaffinity(thread_named("wsthreads-echo.js").native_id) == ALL)


def test_the_thread_that_sends_for_others_has_all_cores():
    def drain():
        app._drainer.go_on(lambda: False)
        return []

    with asking(drain=drain) as (ask, core, app):
        ask("drain")
        for helper in (app._drainer, app._flusher):
            wait_until(lambda helper=helper: os.sched_getaffinity(helper._thread.native_id) == ALL)
        assert ask("place") == {core}


def test_the_thread_that_sends_for_others_has_all_cores_from_the_beginning():
    def drain():
        places = SimpleQueue()
        app._drainer.go_on(lambda: places.put(here()))
        return places.get(timeout=DEADLINE_S)

    with asking(drain=drain) as (ask, core, app):
        assert ask("drain") == ALL
        assert ask("place") == {core}


# Under our own server, whose accepting thread hands the core on.


class AskedAtOnce(Asked):
    """The same, and answers in its handshake already."""

    def on_handshake(self, request):
        request.attributes["cores"] = here()

    def on_open(self, session):
        session.send(" ".join(map(str, session.attributes["cores"])))
        super().on_open(session)


def page(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(map(str, here())).encode()]


@contextmanager
def serving_at_once(ssl_context=None):
    app = WebSocketApp(page, cpu_affinity=True, ping_interval_s=0)
    app.add_handler("/ws/test", AskedAtOnce())
    with Server(app, port=0, ssl_context=ssl_context) as server:
        yield server, app


def places(client):
    return [numbers(client.receive_text()) for _ in range(2)]


def test_a_session_begins_on_its_core():
    with serving_at_once() as (server, app), ExitStack() as stack:
        for _ in range(3):  # the first, for which the core is chosen, has to go there
            *_, core = places(stack.enter_context(RawClient(server.port)))
        assert places(stack.enter_context(RawClient(server.port))) == [core, core]
        accepting = os.sched_getaffinity(thread_named("wsthreads-accept").native_id)
        assert accepting == core == {app.scheduling.affinity.place.core}


def test_a_session_begins_where_the_core_is_by_then():
    with serving_at_once() as (server, app), ExitStack() as stack:
        *_, core = places(stack.enter_context(RawClient(server.port)))
        other = min(ALL - core)
        app.scheduling.affinity.place = Place(other, batch=True)
        assert places(stack.enter_context(RawClient(server.port))) == [{other}, {other}]
        app.scheduling.affinity.place = None
        assert places(stack.enter_context(RawClient(server.port))) == [ALL, ALL]


def test_a_request_that_is_no_session_has_all_cores():
    with serving_at_once() as (server, _), RawClient(server.port) as client:
        places(client)
        for _ in range(3):
            with urlopen(server.url, timeout=PROGRAM_S) as answer:
                assert numbers(answer.read()) == ALL


def test_tls_handshakes_have_all_cores(tmp_path):
    theirs, ours = self_signed(tmp_path)
    with serving_at_once(ssl_context=theirs) as (server, _), ExitStack() as stack:
        for _ in range(2):
            *_, core = places(stack.enter_context(RawClient(server.port, tls=ours)))
        assert len(core) == 1
        assert os.sched_getaffinity(thread_named("wsthreads-accept").native_id) == ALL


# What interrupts what.


class Classed:
    """Tells of which of the scheduler's classes its thread is; joins a room, and starts a thread, when told to."""

    def on_open(self, session):
        session.send(str(os.sched_getscheduler(0)))

    def on_message(self, session, message):
        if message == "join":
            session.room("bench").join()
        if message == "thread":
            wait_until(in_a_thread(lambda: os.sched_getscheduler(0) == os.SCHED_OTHER))
        session.send(str(os.sched_getscheduler(0)))


BATCH, OTHER = "3", "0"


@contextmanager
def classed(**settings):
    app = WebSocketApp(page, ping_interval_s=0, **{"cpu_affinity": True, **settings})
    app.add_handler("/ws/test", Classed())
    with Server(app, port=0) as server, RawClient(server.port):
        yield server, app


def answers(client, message, count=1):
    client.text(message)
    return [client.receive_text() for _ in range(count)]


def test_a_session_interrupts_no_other_one():
    with classed() as (server, _), RawClient(server.port) as client:
        assert client.receive_text() == BATCH
        assert answers(client, "class") == [BATCH]


def test_a_session_in_a_room_interrupts_others():
    with classed() as (server, _), RawClient(server.port) as client:
        client.receive_text()
        assert answers(client, "join") == answers(client, "class") == [OTHER]


def test_what_a_session_starts_interrupts_others_soon():
    with classed() as (server, _), RawClient(server.port) as client:
        client.receive_text()
        assert answers(client, "thread") == answers(client, "class") == [BATCH]


def test_a_session_interrupts_others_while_the_core_is_crowded():
    with classed() as (server, app), RawClient(server.port) as client:
        client.receive_text()
        place = app.scheduling.affinity.place
        for batch, expected in ((False, OTHER), (True, BATCH)):
            app.scheduling.affinity.place = Place(place.core, batch)
            assert answers(client, "class") == [expected]


def test_a_session_that_is_not_kept_interrupts_others():
    with classed(cpu_affinity=False) as (server, _), RawClient(server.port) as client:
        assert client.receive_text() == OTHER


def test_a_thread_that_accepts_interrupts_others():
    with classed():
        assert os.sched_getscheduler(thread_named("wsthreads-accept").native_id) == int(OTHER)


def test_a_process_of_another_class_keeps_it(tmp_path):
    (tmp_path / "place.py").write_text(
        "import os\n"
        "def on_open(session):\n"
        "    session.room('bench').join()\n"
        "    session.send(f'{os.sched_getscheduler(0)} {len(os.sched_getaffinity(0))}')\n"
    )
    all_of_it = partial(os.sched_setscheduler, 0, os.SCHED_BATCH, os.sched_param(0))
    options = {"cwd": tmp_path, "preexec_fn": all_of_it}
    with run_server("place.py", **options) as server, connect(server.ws_url + "/ws/place") as client:
        assert receive(client) == f"{BATCH} 1"


def test_sessions_are_kept_where_the_system_has_no_such_classes_or_forbids_them(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")  # as musl

    for call in ("sched_getscheduler", "sched_setscheduler"):
        monkeypatch.setattr(os, call, refuse)
    with endpoint(Asked(), cpu_affinity=True) as (app, port), RawClient(port) as client:
        assert client.status == 101
        assert len(numbers(client.receive_text())) == 1
    assert not app.scheduling.affinity.place.batch


# What a handler starts.

#: A program that ends well as soon as it may use all cores.
UNTIL_ALL = f"""
import os, time
deadline = time.monotonic() + {DEADLINE_S}
while len(os.sched_getaffinity(0)) < {len(ALL)}:
    assert time.monotonic() < deadline
    time.sleep(0.01)
"""


def has_all():
    return here() == ALL


def soon_all(*_):
    wait_until(has_all)


def in_a_thread(function):
    """A function that calls another one, in a thread that stays the same until that has returned true."""
    pool = ThreadPoolExecutor(1)

    def call():
        result = pool.submit(function).result(DEADLINE_S)
        if result:
            pool.shutdown()
        return result

    return call


def a_thread():
    wait_until(in_a_thread(has_all))


def a_low_level_thread():
    import _thread

    done = threading.Event()
    _thread.start_new_thread(lambda: (soon_all(), done.set()), ())
    assert done.wait(DEADLINE_S)


def a_thread_of_a_thread():
    wait_until(in_a_thread(lambda: wait_until(in_a_thread(has_all)) and has_all()))


def a_program():
    subprocess.run([sys.executable, "-c", UNTIL_ALL], check=True)


def a_program_of_a_shell():
    assert os.system(f"{sys.executable} -c '{UNTIL_ALL}' | cat && {sys.executable} -c '{UNTIL_ALL}'") == 0


def a_spawned_program():
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", UNTIL_ALL], os.environ)
    assert os.waitpid(process, 0)[1] == 0


def a_fork():
    """Its own thread, and one that it has started."""
    child = os.fork()
    if child == 0:
        try:
            thread = threading.Thread(target=soon_all)
            thread.start()
            thread.join()
            soon_all()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def by_multiprocessing(method):
    def start():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            pool.submit(soon_all).result(3 * DEADLINE_S)

    return start


STARTS = {
    "thread": a_thread,
    "low-level thread": a_low_level_thread,
    "thread of a thread": a_thread_of_a_thread,
    "program": a_program,
    "programs of a shell": a_program_of_a_shell,
    "posix_spawn": a_spawned_program,
    "fork": a_fork,
    "multiprocessing fork": by_multiprocessing("fork"),
    "multiprocessing spawn": by_multiprocessing("spawn"),
    "multiprocessing forkserver": by_multiprocessing("forkserver"),
}


@pytest.mark.quiet  # the looks for such threads take a share of the time
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of os.fork, from Python 3.12 on
@pytest.mark.parametrize("name", STARTS)
def test_what_a_handler_starts_has_all_cores_soon_and_the_session_keeps_its_own(name):
    with asking(start=lambda: STARTS[name]() or here()) as (ask, core, _):
        assert ask("start") == ask("place") == {core}


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_the_last_session_has_started_has_all_cores_soon(goes_on):
    """Where the app goes on without sessions, and where it is shut down at once."""
    thread = threading.Thread(target=soon_all)
    with endpoint(Asked(start=lambda: thread.start() or here()), cpu_affinity=True) as (_, port):
        with RawClient(port) as client:
            client.receive_text()
            client.text("start")
            client.receive_text()
        if goes_on:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_what_a_handler_starts_after_use_all_cores_has_them_at_once():
    def start():
        use_all_cores()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(here).result(DEADLINE_S) == ALL
        printed = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, check=True).stdout
        return numbers(printed)

    use_all_cores()  # nothing happens elsewhere
    with asking(start=start) as (ask, core, _):
        assert ask("start") == ALL
        assert ask("place") == {core}


def test_a_core_that_somebody_chose_is_left_to_them_from_the_second_look_on():
    """And a choice of other cores from the first."""
    affinity = started(Affinity(wanted=True))
    core = affinity.place.core
    flusher, admission = Mock(), busy()
    (other,) = sorted(ALL - {core})[:1]
    with ThreadPoolExecutor(1) as pool:
        for chosen, expected in ((other, {other}), (core, {core})):
            pool.submit(os.sched_setaffinity, 0, {chosen}).result(DEADLINE_S)
            for _ in range(3):
                affinity._look_for_inherited(flusher, admission)
            assert pool.submit(here).result(DEADLINE_S) == expected


def test_a_look_that_waits_for_the_processor_does_not_delay_the_next_one(monkeypatch):
    """But one that takes it does."""

    def spin(*_, **__):
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    affinity, flusher, admission = started(Affinity(wanted=True)), Mock(), busy()
    monkeypatch.setattr(affinity._inheritance, "look", lambda *_, **__: time.sleep(0.05))
    affinity._look_for_inherited(flusher, admission)
    monkeypatch.setattr(affinity._inheritance, "look", spin)
    affinity._look_for_inherited(flusher, admission)
    quick, slow = (call.args[0] for call in flusher.call_later.call_args_list)
    assert quick == INHERITED_LOOK_S
    assert slow >= 0.05 / INHERITED_LOOK_SHARE


def test_nothing_of_the_standard_library_is_changed():
    program = Path(__file__).with_name("unpatched.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program)]
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PROGRAM_S)
    assert outcome.stdout == "nothing\n", outcome.stdout + outcome.stderr


# Where it is on.


@pytest.mark.parametrize(("setting", "kept"), [(None, False), (False, False), (True, True)])
def test_inside_somebody_elses_application_it_is_off_by_default(setting, kept):
    with endpoint(Asked(), cpu_affinity=setting) as (_, port), RawClient(port) as client:
        assert (len(numbers(client.receive_text())) == 1) is kept


@pytest.mark.parametrize(("options", "kept"), [([], True), (["--cpu-affinity"], True), (["--no-cpu-affinity"], False)])
def test_wsthreads_run_keeps_its_sessions_unless_told_not_to(tmp_path, options, kept):
    (tmp_path / "place.py").write_text(
        "import os\ndef on_open(session): session.send(' '.join(map(str, os.sched_getaffinity(0))))\n"
    )
    with run_server("place.py", *options, cwd=tmp_path) as server, connect(server.ws_url + "/ws/place") as client:
        cores = numbers(receive(client))
        assert cores < ALL if kept else cores == ALL
        assert " core" not in server.log


class Gunicorn(Program):
    def __init__(self, worker, *options, setting=None):
        command = [sys.executable, "-m", "gunicorn", "-k", worker, "-b", "127.0.0.1:0", *options]
        env = {} if setting is None else {"CPU_AFFINITY": setting}
        super().__init__([*command, "tests.affinity_app:app"], env=env)
        self.port = int(self.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])

    def page(self):
        """The process, and the cores, of a request that is no session."""
        with urlopen(f"http://127.0.0.1:{self.port}/", timeout=PROGRAM_S) as answer:
            process, *cores = map(int, answer.read().split())
        return process, set(cores)

    def session(self, stack):
        """The process and the cores of a new session, which lasts as long as `stack`. None if it was not let in."""
        client = stack.enter_context(RawClient(self.port, "/ws/place"))
        if client.status != 101:
            return None
        client.text("where?")
        process, *cores = map(int, client.receive_text().split())
        return process, set(cores)


OURS, THEIRS = "wsthreads.gunicorn.ThreadWorker", "gthread"


@pytest.mark.parametrize(
    ("worker", "options", "setting", "kept"),
    [
        (OURS, [], None, True),
        (OURS, ["--preload"], None, True),
        (OURS, [], "0", False),
        (THEIRS, [], None, False),
        (THEIRS, ["--preload"], "1", True),
    ],
)
def test_under_gunicorn_it_is_on_with_our_worker_class(worker, options, setting, kept):
    with Gunicorn(worker, "--threads", "3", *options, setting=setting) as server:
        for _ in range(3):
            with ExitStack() as stack:
                _, cores = wait_until(lambda stack=stack: server.session(stack))
            assert cores < ALL if kept else cores == ALL
        # The threads that served the sessions are among those that answer now.
        assert [server.page()[1] for _ in range(9)] == [ALL] * 9
        assert server.end() == 0


def test_each_worker_has_its_core_and_leaves_it_to_the_one_that_replaces_it():
    with Gunicorn(OURS, "--threads", "3", "-w", "2") as server, ExitStack() as stack:
        server.wait_for("Booting worker with pid", times=2)

        def new_session(known):  # a worker with three threads lets one in
            place = server.session(stack)
            return place if place and place[0] not in known else None

        first, first_cores = wait_until(lambda: new_session([]))
        second, second_cores = wait_until(lambda: new_session([first]))
        assert len(first_cores) == len(second_cores) == 1
        assert first_cores != second_cores
        os.kill(first, signal.SIGKILL)
        _, third_cores = wait_until(lambda: new_session([first, second]))
        assert third_cores == first_cores


# Where nothing can be done.


def test_with_one_core_nothing_is_done(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(os, "sched_setaffinity", None)
    affinity, flusher = Affinity(wanted=True), FakeFlusher()
    affinity.start(flusher, busy())
    assert affinity.place is None
    assert not flusher.callbacks
    with affinity.pin():
        assert affinity.place is None


def test_where_the_system_has_no_such_call_nothing_is_done(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    affinity = started(Affinity(wanted=True))
    with affinity.pin():
        assert affinity.place is None


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_system_that_refuses_breaks_no_session_and_is_asked_no_more(monkeypatch, caplog, allowed):
    calls, real = [], os.sched_setaffinity

    def refuse(thread, cores):
        calls.append(cores)
        if len(calls) > allowed:
            raise PermissionError(1, "not here")
        real(thread, cores)

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with endpoint(Asked(), cpu_affinity=True) as (app, port), caplog.at_level(logging.WARNING):
        for n in range(3):
            with RawClient(port) as client:
                client.receive_text()
                if n == 1 and app.scheduling.affinity.place is not None:
                    app.scheduling.affinity.place = Place(min(ALL - {app.scheduling.affinity.place.core}), batch=True)
                for _ in range(2):
                    client.text("place")
                    client.receive_text()
                assert client.leave() is None
    assert [record.getMessage() for record in caplog.records if record.name == "wsthreads.threads.affinity"] == [
        "sessions are not kept on one core: [Errno 1] not here"
    ]
    assert len(calls) <= 3 + allowed


# Another core, where others use this one.


def loads(**cores):
    """Seconds of (work, idleness) by core: ``a`` is core 0, ``b`` core 1."""
    return {"abc".index(name): load for name, load in cores.items()}


NOTHING = loads(a=(0, 0), b=(0, 0), c=(0, 0))


@pytest.mark.parametrize(
    ("now", "own_s", "roomier"),
    [
        (loads(a=(2, 0), b=(0, 2)), 1, 1),
        (loads(a=(2, 0), b=(0.5, 1.5), c=(0.2, 1.8)), 1, 2),
        (loads(a=(2, 0), b=(0, 2)), 1.9, None),  # it is us
        (loads(a=(2, 0), b=(0, 2)), 4, None),  # it is us, here and there
        (loads(a=(1.4, 0.6), b=(0, 2)), 0.5, None),  # there is something left
        (loads(a=(2, 0), b=(1.2, 0.8)), 1, None),  # it is no better there
        (loads(a=(2, 0)), 1, None),
        (loads(b=(0, 2)), 1, None),
        (loads(a=(0, 0), b=(0, 0)), 0, None),
        ({}, 0, None),
    ],
)
def test_the_core_is_changed_where_others_leave_us_too_little_and_another_has_plenty(now, own_s, roomier):
    assert roomier_core(0, [0, 1, 2], NOTHING, now, own_s) == roomier


def test_a_core_that_we_may_not_use_is_not_gone_to():
    assert roomier_core(0, [0, 1], NOTHING, loads(a=(2, 0), b=(2, 0), c=(0, 2)), 1) is None


class Machine:
    """What /proc/stat would say: two seconds go by at each look."""

    def __init__(self, **busy):
        self.busy = busy  # the share of each core that programs take
        self.counts = loads(**dict.fromkeys(busy, (0, 0)))
        self.looks = 0

    def read(self):
        self.looks += 1
        for core, busy in loads(**self.busy).items():
            work, idle = self.counts[core]
            self.counts[core] = (work + 2 * busy, idle + 2 * (1 - busy))
        return dict(self.counts)


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)


@pytest.mark.usefixtures("two_cores")
def test_it_moves_when_it_was_crowded_in_two_looks_on_end():
    machine, flusher = Machine(a=1, b=0), FakeFlusher()
    affinity = Affinity(wanted=None, read=machine.read)
    affinity.claim(0)
    affinity.start(flusher, busy())
    for machine.busy["a"] in (1, 1, 0.5, 1):  # the first look has nothing to compare with
        flusher.run()
        assert affinity.place.core == 0
    flusher.run()
    assert affinity.place == (1, True)
    for _ in range(5):
        flusher.run()
    assert affinity.place == (1, True)


@pytest.mark.usefixtures("two_cores")
def test_sessions_use_the_batch_class_where_others_do_not_crowd_them():
    machine, flusher = Machine(a=0.1, b=1), FakeFlusher()
    affinity = Affinity(wanted=None, read=machine.read)
    affinity.claim(0)
    affinity.start(flusher, busy())
    for machine.busy["a"], batch in ((0.5, True), (0.5, False), (0.1, True), (0.1, True), (0.5, False), (0.1, True)):
        before = affinity.place
        flusher.run()
        assert affinity.place == (0, batch)
        assert (affinity.place is before) is (before.batch is batch)


@pytest.mark.parametrize(
    ("now", "own_s", "ours"),
    [
        (loads(a=(2, 0)), 1.6, True),
        (loads(a=(2, 0)), 1.4, False),
        (loads(a=(0.4, 1.6)), 0, True),
        (loads(a=(0.6, 1.4)), 0, False),
        (loads(a=(1, 1)), 3, True),  # ours on other cores, too
        (loads(a=(0, 0)), 0, True),
        ({}, 0, True),
    ],
)
def test_a_core_is_ours_where_others_have_less_than_a_quarter_of_it(now, own_s, ours):
    assert is_ours(0, NOTHING, now, own_s) is ours


@pytest.mark.usefixtures("two_cores")
def test_nobody_looks_when_there_are_no_sessions():
    machine, flusher, admission = Machine(a=1, b=0), FakeFlusher(), Admission(10)
    affinity = Affinity(wanted=True, read=machine.read)
    for _ in range(3):
        busy(admission)
        affinity.start(flusher, admission)
        affinity.start(flusher, admission)
        assert len(flusher.callbacks) == 1
        flusher.run()
        assert len(flusher.callbacks) == 1
        admission.leave()
        flusher.run()
        assert not flusher.callbacks
    assert machine.looks == 3


def test_this_machines_cores_are_read():
    before = read_loads()
    assert before.keys() >= ALL
    assert all(work >= 0 and idle >= 0 for work, idle in before.values())


def test_a_real_flusher_looks():
    looked, flusher = threading.Event(), Flusher()

    def read():
        looked.set()
        return {}

    flusher.start()
    try:
        Affinity(wanted=True, read=read).start(flusher, busy())
        assert looked.wait(DEADLINE_S)
    finally:
        flusher.stop(DEADLINE_S)
