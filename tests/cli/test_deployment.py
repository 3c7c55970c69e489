"""What `wsthreads new --deploy` writes: gunicorn serves it, nginx and systemd take it, and it fits what is there."""

from __future__ import annotations

import configparser
import json
import re
import runpy
import shutil
import ssl
import subprocess
import sys
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed

from tests.pages import blocks
from tests.ports import free_port
from tests.programs import PROGRAM_S, ROOT, Program, connect, receive, wait_until, wsthreads
from tests.speakers import Speaker
from tests.wire import self_signed
from wsthreads import UsageError
from wsthreads.cli.deployment import Served, deployment_files, find_served, needs_of
from wsthreads.cli.scaffold import scaffold

FILES = [
    "deploy/Containerfile", "deploy/Containerfile.dockerignore", "deploy/chat.service", "deploy/grafana.json",
    "deploy/nginx.conf", "gunicorn.conf.py",
]  # fmt: skip
HANDLER = "export function onOpen(session) { session.send('hello'); }\n"


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


@contextmanager
def gunicorn(folder, **environment):
    """gunicorn as the files say, but at any free port."""
    port = free_port()
    environment = {"BIND": f"127.0.0.1:{port}", **environment}
    with Program([sys.executable, "-m", "gunicorn"], cwd=folder, env=environment) as server:
        server.port = port

        def answers():
            try:
                page(f"http://127.0.0.1:{port}/")
            except HTTPError:
                return True  # without a page
            except OSError:
                return server.process.poll() is not None
            return True

        wait_until(answers, "gunicorn to answer", PROGRAM_S)
        yield server


def page(url, **headers):
    context = ssl._create_unverified_context()
    with urlopen(Request(url, headers=headers), timeout=PROGRAM_S, context=context) as answer:
        return answer.read().decode()


@contextmanager
def talk(url, **options):
    """A session of the chat that has said something."""
    with connect(f"{url}?user=ann", **options) as client:
        assert json.loads(receive(client)) == {"type": "join", "user": "ann", "members": 1}
        client.send("hello")
        assert json.loads(receive(client)) == {"type": "message", "user": "ann", "text": "hello"}
        yield client


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_gunicorn_serves_a_new_folder_with_its_page(tmp_path, language):
    scaffold(tmp_path / "chat", language, deploy=True)
    with gunicorn(tmp_path / "chat") as server:
        with talk(f"ws://127.0.0.1:{server.port}/ws/chat") as client:
            assert "<title>Chat</title>" in page(f"http://127.0.0.1:{server.port}/")
            assert "ReconnectingWebSocket" in page(f"http://127.0.0.1:{server.port}/wsthreads.js")
            assert server.end() == 0
            with pytest.raises(ConnectionClosed) as caught:
                receive(client)
            assert caught.value.rcvd.code == 1001
        assert "Traceback" not in server.log


SCRIPT_WITH_NEEDS = """import { env, room } from "wsthreads";
export async function onOpen(session) {
  const refused = await fetch("http://192.0.2.1/").catch((error) => error.message);
  const allowed = await fetch("http://127.0.0.1:1/").catch((error) => error.message);
  session.send([env.GREETING, refused.includes("allow_net"), allowed.includes("allow_net")].join());
}
"""


def test_a_script_gets_its_secrets_and_its_hosts(tmp_path):
    (tmp_path / "chat.js").write_text(SCRIPT_WITH_NEEDS)
    (tmp_path / ".env").write_text("GREETING=hello\n")
    scaffold(tmp_path, deploy=True, env_file=".env", allow_net=["127.0.0.1:1"])
    assert ".env" in (tmp_path / "deploy" / "Containerfile.dockerignore").read_text().splitlines()
    for file in ("Containerfile", f"{tmp_path.name}.service"):
        assert "'wsthreads[fetch,gunicorn" in (tmp_path / "deploy" / file).read_text()
    with gunicorn(tmp_path) as server, connect(f"ws://127.0.0.1:{server.port}/ws/chat") as client:
        assert receive(client) == "hello,true,false"


def test_what_the_docs_store_is_where_the_service_and_the_container_may_write(tmp_path):
    chat, state = tmp_path / "chat", tmp_path / "state"
    chat.mkdir()
    state.mkdir()
    (chat / "log.js").write_text(blocks("docs/how-to/python-from-javascript", "javascript")[0])
    (chat / "_store.py").write_text(blocks("docs/how-to/python-from-javascript", "python")[0])
    (chat / "log.js").write_text((chat / "log.js").read_text().replace("./store.py", "./_store.py"))
    scaffold(chat, deploy=True)
    before = names_in(chat)
    with gunicorn(chat, STATE_DIRECTORY=str(state)) as server:
        with connect(f"ws://127.0.0.1:{server.port}/ws/log") as client:
            client.send("hello")
            assert json.loads(receive(client)) == {"id": 1, "text": "hello"}
        assert server.end() == 0
    assert names_in(state) == ["messages.sqlite3"]
    assert [name for name in names_in(chat) if "__pycache__" not in name] == before
    lines = (chat / "deploy" / "chat.service").read_text().splitlines()
    assert {"StateDirectory=chat", "ProtectSystem=strict"} < set(lines)  # systemd sets STATE_DIRECTORY
    container = (chat / "deploy" / "Containerfile").read_text()
    assert {"--read-only", "-v chat-state:/var/lib/chat"} <= {*re.findall(r"--read-only|-v chat-state:\S+", container)}
    assert "\nENV STATE_DIRECTORY=/var/lib/chat\n" in container


@pytest.mark.parametrize("name", ["accounts.sqlite3", "accounts.sqlite3-wal", "db.sqlite", "chat.db", "chat.db-shm"])
def test_a_database_does_not_get_into_the_image(name):
    patterns = deployment_files("chat", Served(("chat.js",)))["deploy/Containerfile.dockerignore"].splitlines()
    assert any(fnmatch(name, pattern.removeprefix("**/")) for pattern in patterns)


def test_new_says_what_a_script_uses_and_is_not_given(tmp_path):
    (tmp_path / "chat.js").write_text(SCRIPT_WITH_NEEDS)
    told = wsthreads("new", "--deploy", cwd=tmp_path).stdout
    assert 'A script uses env: add "env_file": ".env" to the settings in gunicorn.conf.py' in told
    assert "A script uses fetch: add" in told
    (tmp_path / "gunicorn.conf.py").unlink()
    shutil.rmtree(tmp_path / "deploy")
    told = wsthreads("new", "--deploy", "--env-file", ".env", "--allow-net", "127.0.0.1:1", cwd=tmp_path).stdout
    assert "gunicorn.conf.py" in told
    assert "A script uses" not in told
    assert '"env_file": ".env"' in (tmp_path / "gunicorn.conf.py").read_text()


def test_an_application_passes_secrets_and_hosts_itself(tmp_path):
    (tmp_path / "app.py").write_text("from wsthreads import create_app\napp = create_app('chat.js')\n")
    (tmp_path / "chat.js").write_text(SCRIPT_WITH_NEEDS)
    with pytest.raises(UsageError, match="app:app has to pass env_file and allow_net itself"):
        scaffold(tmp_path, deploy=True, env_file=".env")
    assert needs_of(tmp_path) == []


def test_the_folder_may_be_elsewhere_and_the_variables_are_settings(tmp_path):
    scaffold(tmp_path / "chat", deploy=True)
    with Program(
        [sys.executable, "-m", "gunicorn", "-c", str(tmp_path / "chat" / "gunicorn.conf.py")],
        cwd=tmp_path,
        env={"BIND": "127.0.0.1:0", "METRICS": "1", "RESUME_S": "60", "TRUSTED_PROXIES": "1"},
    ) as server:
        port = server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1]
        with talk(f"ws://127.0.0.1:{port}/ws/chat", additional_headers={"X-Forwarded-For": "203.0.113.7"}):
            assert 'wsthreads_sessions{endpoint="/ws/chat"} 1.0' in page(f"http://127.0.0.1:{port}/metrics")
        with Speaker(int(port), "/ws/chat?user=eve").begin() as client:
            assert client.token is not None
            client.leave()
        assert server.end() == 0
        assert re.search(r'^203\.0\.113\.7 .*"GET /ws/chat\?user=ann HTTP/1\.1" 101', server.log, re.MULTILINE)


def test_nginx_takes_its_file_and_serves_the_chat_by_tls(tmp_path):
    command = program("nginx")
    scaffold(tmp_path / "chat", deploy=True)
    self_signed(tmp_path)
    site, tls_port = (tmp_path / "chat" / "deploy" / "nginx.conf").read_text(), free_port()
    with gunicorn(tmp_path / "chat", TRUSTED_PROXIES="1", METRICS="1") as server:
        for written, ours in {
            "listen 443": f"listen 127.0.0.1:{tls_port}",
            "127.0.0.1:8000;": f"127.0.0.1:{server.port};",
            "/etc/ssl/chat.example.org.pem": f"{tmp_path}/certificate.pem",
            "/etc/ssl/private/chat.example.org.key": f"{tmp_path}/key.pem",
        }.items():
            assert site.count(written) == 1
            site = site.replace(written, ours)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {tmp_path};" for kind in kinds)
        (tmp_path / "main.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; events {{}} http {{ access_log off; {paths}\n{site}\n}}"
        )
        arguments = [command, "-c", str(tmp_path / "main.conf"), "-e", "stderr"]
        checked = subprocess.run([*arguments, "-t"], capture_output=True, text=True, timeout=PROGRAM_S)
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr, checked.stderr
        url = f"https://127.0.0.1:{tls_port}"

        def answers():
            with suppress(OSError):
                return page(url)

        with Program(arguments) as proxy:
            assert "<title>Chat</title>" in wait_until(answers, deadline_s=PROGRAM_S)
            context = ssl._create_unverified_context()
            with talk(f"wss://127.0.0.1:{tls_port}/ws/chat", ssl=context, origin=url):  # as of a page of the server
                assert "wsthreads_sessions{" in page(f"http://127.0.0.1:{server.port}/metrics")
                with pytest.raises(HTTPError, match="404"):
                    page(f"{url}/metrics")
            proxy.end()
        assert server.end() == 0


def test_systemd_takes_the_unit(tmp_path):
    command = program("systemd-analyze")
    scaffold(tmp_path / "chat", deploy=True)
    unit = tmp_path / "chat" / "deploy" / "chat.service"

    def verify(text):
        unit.write_text(text)
        arguments = [command, "verify", "--man=no", str(unit)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=PROGRAM_S).stderr

    text = unit.read_text()
    assert text.count("ExecStart=/srv/chat/venv/bin/gunicorn ") == 1
    text = text.replace("/srv/chat/venv/bin/gunicorn", sys.executable)  # verify wants a program that is there
    assert verify(text) == ""
    assert "mixd" in verify(text.replace("KillMode=mixed", "KillMode=mixd"))


def test_the_limits_of_the_files_go_together(tmp_path):
    scaffold(tmp_path / "chat", deploy=True)
    config = runpy.run_path(str(tmp_path / "chat" / "gunicorn.conf.py"))
    unit = (tmp_path / "chat" / "deploy" / "chat.service").read_text()
    container = (tmp_path / "chat" / "deploy" / "Containerfile").read_text()
    limits = re.findall(r"(?:TasksMax|LimitNOFILE|pids-limit|nofile)[= ](\d+)", unit + container)
    assert len(limits) == 4
    assert min(map(int, limits)) > config["worker_connections"] > config["threads"]
    patience = re.findall(r"(?:TimeoutStopSec=|stop-timeout )(\d+)", unit + container)
    assert len(patience) == 2
    assert min(map(int, patience)) > config["graceful_timeout"]
    nginx = (tmp_path / "chat" / "deploy" / "nginx.conf").read_text()
    assert nginx.count(config["bind"]) == 2  # where it passes requests on, and where metrics are read


def test_the_command_says_what_to_do_next(tmp_path):
    done = wsthreads("new", "chat", "--deploy", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    written, _, commands = done.stdout.partition("\nNext:\n")
    assert sorted(written.splitlines()) == sorted(f"chat/{name}" for name in names_in(tmp_path / "chat"))
    assert set(FILES) < set(names_in(tmp_path / "chat"))
    assert re.findall("^  (.*?)(?: +#.*)?$", commands, re.MULTILINE)[-1] == "gunicorn"
    check = wsthreads("check", ".", cwd=tmp_path / "chat")
    assert check.stdout == "chat.js  /ws/chat  onOpen, onMessage, onClose\n"


# A project that is there


@pytest.fixture
def chat(tmp_path):
    (tmp_path / "chat").mkdir()
    return tmp_path / "chat"


def test_beside_handlers_only_the_files_for_deployment_are_written(chat):
    (chat / "one.js").write_text(HANDLER)
    (chat / "two.py").write_text("def on_open(session):\n    session.send('hello')\n")
    (chat / "_helper.py").write_text("")
    (chat / "test_two.py").write_text("")
    before = names_in(chat)
    done = wsthreads("new", "--deploy", cwd=chat)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.partition("\n\n")[0].splitlines()) == FILES
    assert names_in(chat) == sorted([*before, *FILES])
    with gunicorn(chat) as server:
        for path in ("/ws/one", "/ws/two"):
            with connect(f"ws://127.0.0.1:{server.port}{path}") as client:
                assert receive(client) == "hello"
        assert server.end() == 0


def test_beside_an_application_that_is_what_gunicorn_serves(chat):
    (chat / "lounge.js").write_text(HANDLER)
    (chat / "app.py").write_text(
        "from flask import Flask\nfrom wsthreads import WebSocketApp\n"
        "app = Flask(__name__)\napp.get('/')(lambda: 'the page')\n"
        "sockets = WebSocketApp(app.wsgi_app)\nsockets.add_script('/live', 'lounge.js')\napp.wsgi_app = sockets\n"
    )
    scaffold(chat, deploy=True)
    with gunicorn(chat) as server:
        with connect(f"ws://127.0.0.1:{server.port}/live") as client:
            assert receive(client) == "hello"
        assert page(f"http://127.0.0.1:{server.port}/") == "the page"
        assert server.end() == 0


@pytest.mark.parametrize(
    ("source", "app"),
    [
        ("from wsthreads import WebSocketApp\nsockets = WebSocketApp()\n", "site:sockets"),
        ("from wsthreads import WebSocketApp as W\nweb = Flask()\nweb.wsgi_app = W(web.wsgi_app)\n", "site:web"),
        ("import wsthreads\napp = wsthreads.create_app('chat.js')\n", "site:app"),
        ("from wsthreads import create_app\napplication = Logged(create_app('chat.js'))\n", "site:application"),
        ("from wsthreads import WebSocketApp\ninner = WebSocketApp()\nouter = WebSocketApp(inner)\n", "site:outer"),
        (
            "from wsthreads import WebSocketApp\napplication = WebSocketApp()\napplication.route('/x')(Chat)\n"
            "application = Login(application)\n",
            "site:application",
        ),
    ],
)
def test_the_application_is_found_without_running_it(chat, source, app):
    (chat / "site.py").write_text(source)
    (chat / "broken.py").write_text("def (:\n")
    assert find_served(chat) == Served(app=app)
    assert f'\nwsgi_app = "{app}"\n' in deployment_files("chat", Served(app=app))["gunicorn.conf.py"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"manage.py": "import django\n"}, "Python files, but no handler and no WebSocketApp: .* --app"),
        ({"site.py": "from project import create_app\napp = create_app()\n"}, "no handler and no WebSocketApp"),
        (
            {"site.py": "import wsthreads\ndef make():\n    return wsthreads.WebSocketApp()\n", "a.js": HANDLER},
            r"site\.py: it makes its WebSocketApp in a function: name the application with --app",
        ),
        (  # clients of site:sockets would bypass the login
            {"site.py": "from wsthreads import WebSocketApp\nsockets = WebSocketApp()\n"
             "def login(environ, start):\n    return sockets(environ, start)\n"},
            r"site\.py:4: another application may be around sockets, .* a login: .* --app",
        ),
        (
            {"site.py": "from wsthreads import WebSocketApp\nsockets = WebSocketApp()\nguard = Login(sockets)\n"},
            r"site\.py:3: another application may be around sockets",
        ),
        (
            {f"{name}.py": "from wsthreads import WebSocketApp\napp = WebSocketApp()\n" for name in ("one", "two")},
            "several applications, one:app, two:app: choose one with --app",
        ),
        ({"a.js": HANDLER, "a.ts": HANDLER}, "would both have the path /ws/a"),
        ({"a.js": HANDLER, "gunicorn.conf.py": "bind = ''\n"}, r"nothing was written.*gunicorn\.conf\.py"),
    ],
)
def test_what_cannot_be_deployed_is_said_and_nothing_is_written(chat, sources, message):
    for name, source in sources.items():
        (chat / name).write_text(source)
    with pytest.raises(UsageError, match=message):
        scaffold(chat, deploy=True)
    assert {name: (chat / name).read_text() for name in names_in(chat)} == sources


def test_an_application_can_be_named(chat):
    (chat / "manage.py").write_text("import django\n")
    files = scaffold(chat, deploy=True, app="site.wsgi:application")
    assert sorted(str(file.relative_to(chat)) for file in files) == FILES
    assert '\nwsgi_app = "site.wsgi:application"\n' in (chat / "gunicorn.conf.py").read_text()
    for app in ("app", "app:", "app:make()", "a b:app", 'app:x"'):
        with pytest.raises(UsageError, match="--app must be a module and a name in it"):
            scaffold(chat, deploy=True, app=app)


def test_options_that_do_not_go_together_are_refused(chat):
    (chat / "chat.js").write_text(HANDLER)
    for arguments, message in {
        ("new", "--deploy", "--python"): "wsthreads: this folder has chat.js, and --deploy writes no new handler then: "
        "leave out --python\n",
        ("new", ".", "--app", "app:app"): "wsthreads: --app is the application to deploy: add --deploy\n",
        ("new",): "wsthreads: Missing argument 'FOLDER'.\n",
    }.items():
        done = wsthreads(*arguments, cwd=chat)
        assert (done.returncode != 0, done.stderr) == (True, message)
    assert names_in(chat) == ["chat.js"]


def test_a_folder_without_code_gets_a_handler_too_and_any_name_makes_a_service(tmp_path):
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "README").write_text("")
    assert scaffold(tmp_path / "chat", "python", deploy=True)[0].name == "chat.py"
    (tmp_path / "My Chat (2)").mkdir()
    (tmp_path / "My Chat (2)" / "one.js").write_text(HANDLER)
    assert "deploy/My-Chat-2.service" in [
        str(file.relative_to(tmp_path / "My Chat (2)")) for file in scaffold(tmp_path / "My Chat (2)", deploy=True)
    ]


def test_no_placeholder_is_left_and_the_dashboard_is_json(tmp_path):
    for served in (Served(("chat.js",), "public"), Served(app="app:app")):
        files = deployment_files("chat", served)
        assert sorted(files) == FILES
        json.loads(files["deploy/grafana.json"])
        compile(files["gunicorn.conf.py"], "gunicorn.conf.py", "exec")
        for name, text in files.items():
            assert not re.search(r"\bNAME\b|\bSERVED\b", text), name


def test_the_templates_are_in_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["wsthreads.cli"].split(", ")
    folder = ROOT / "wsthreads" / "cli"
    packaged = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    assert packaged == {path for path in (folder / "templates").rglob("*") if path.is_file()}
