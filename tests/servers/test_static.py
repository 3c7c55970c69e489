from __future__ import annotations

import subprocess

import pytest

from tests.programs import PROGRAM_S, Browser
from wsthreads import UsageError, WebSocketApp
from wsthreads.servers.static import StaticFiles


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "public" / "sub").mkdir(parents=True)
    (tmp_path / "public" / "index.html").write_text("the index")
    (tmp_path / "public" / "sub" / "index.html").write_text("the index of sub")
    (tmp_path / "public" / "page.js").write_text("let x;")
    (tmp_path / "public" / ".env").write_text("SECRET=1")
    (tmp_path / "public" / ".git").mkdir()
    (tmp_path / "public" / ".git" / "config").write_text("secret")
    (tmp_path / "public" / ".well-known").mkdir()
    (tmp_path / "public" / ".well-known" / "security.txt").write_text("Contact: somebody")
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "public2").mkdir()
    (tmp_path / "public2" / "index.html").write_text("secret")
    (tmp_path / "public" / "link.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "public" / "linked").symlink_to(tmp_path / "public2")
    (tmp_path / "public" / "etc").symlink_to("/etc")
    (tmp_path / "public" / "sub2").mkdir()
    (tmp_path / "public" / "sub2" / "index.html").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "public" / "loop").symlink_to("loop")
    (tmp_path / "public" / "inner.js").symlink_to("page.js")
    (tmp_path / "public" / "sub" / "up").symlink_to("..")
    return tmp_path / "public"


@pytest.fixture
def client(folder):
    return Browser(StaticFiles(folder))


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("/", "the index", "text/html"),
        ("/sub/", "the index of sub", "text/html"),
        ("/page.js", "let x;", "javascript"),
        ("/.well-known/security.txt", "Contact: somebody", "text/plain"),
    ],
)
def test_files_and_indexes_are_served(client, path, text, kind):
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, text)
    assert kind in answer.content_type
    assert client.head(path).status_code == 200


def test_a_folder_without_its_slash_is_redirected_so_that_relative_links_work(client):
    answer = client.get("/sub?a=b")
    assert answer.status_code in (307, 308)
    assert answer.headers["Location"].endswith("sub/?a=b")


@pytest.mark.parametrize(
    "path",
    ["/no", "/.env", "/.git/config", "/../outside.txt", "/%2e%2e/outside.txt", "/sub/../../outside.txt", "/%00",
     "//", "/" + "a" * 5000, "/..%5coutside.txt", "/%ff", "/link.txt", "/linked/", "/sub2/", "/sub2/index.html",
     "/linked", "/linked/index.html", "/etc/passwd", "/etc/hostname", "/loop", "/sub/up/link.txt",
     "/sub/up/sub/up/linked/", "/..", "/../public2/", "/%2e%2e/public2/index.html", "/.%2e/outside.txt",
     "/%252e%252e/outside.txt", "/..%2foutside.txt", "/page.js/", "/page.js%00.html", "/%00/../outside.txt", "/.ENV",
     "/sub/./../../outside.txt", "/./.env", "/sub/../.env", "/.well-known/../.env", "/.well-known/../../outside.txt",
     "/..;/outside.txt", "/%c0%ae%c0%ae/outside.txt", "/~root", "/C:/outside.txt", "/page.js::$DATA", "//etc/passwd",
     "///etc/passwd", "/%2fetc/passwd"],
)  # fmt: skip
def test_nothing_else_is(client, path):
    for method in (client.get, client.head):
        answer = method(path)
        assert answer.status_code == 404 or path == "//"
        assert "secret" not in answer.text.lower()
        assert "root:" not in answer.text


def test_links_that_stay_inside_are_followed_and_so_is_one_to_the_directory_itself(folder):
    for directory in (folder, folder.parent / "current"):
        if directory != folder:
            directory.symlink_to(folder)
        client = Browser(StaticFiles(directory))
        assert client.get("/inner.js").text == "let x;"
        assert client.get("/sub/up/page.js").text == "let x;"


@pytest.mark.parametrize("path", ["//evil.example/%2e%2e/sub", "//sub", "/sub%0d%0aX:%20y", "/sub?a=%0d%0aX:%20y"])
def test_a_redirect_leads_to_nowhere_else_and_adds_no_header(client, path):
    answer = client.get(path)
    assert not answer.headers.get("Location", "").startswith(("//", "http"))
    assert "X" not in answer.headers


def test_an_unchanged_file_is_a_304(client):
    tag = client.get("/page.js").headers["ETag"]
    assert client.get("/page.js", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/page.js").headers["Cache-Control"] == "no-cache"


def range_of(client, wanted, path="/digits.bin", **headers):
    """(status, body, Content-Range) of a GET with this Range."""
    answer = client.get(path, headers={"Range": wanted, **headers})
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    return answer.status_code, answer.text, answer.headers.get("Content-Range")


@pytest.fixture
def digits(folder, client):
    (folder / "digits.bin").write_text("0123456789")
    (folder / "empty.bin").write_text("")
    return client


@pytest.mark.parametrize(
    ("wanted", "body", "part"),
    [
        ("bytes=0-3", "0123", "0-3"),
        ("bytes=3-", "3456789", "3-9"),
        ("bytes=9-", "9", "9-9"),
        ("bytes=0-0", "0", "0-0"),
        ("bytes=0-9", "0123456789", "0-9"),
        ("bytes=5-999", "56789", "5-9"),
        ("bytes=5-" + "9" * 400, "56789", "5-9"),
        ("bytes=0005-0006", "56", "5-6"),
        ("bytes=-3", "789", "7-9"),
        ("bytes=-10", "0123456789", "0-9"),
        ("bytes=-11", "0123456789", "0-9"),  # more than there is
        ("bytes=-" + "9" * 400, "0123456789", "0-9"),
        ("Bytes=1-2", "12", "1-2"),
        ("bytes= 1-2", "12", "1-2"),
        ("bytes=,1-2,", "12", "1-2"),
        (" bytes=1-2 ", "12", "1-2"),
    ],
)
def test_a_range_is_a_206(digits, wanted, body, part):
    assert range_of(digits, wanted) == (206, body, f"bytes {part}/10")


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=99-99", "bytes=" + "9" * 400 + "-", "bytes=-0"])
def test_a_range_that_cannot_be_met_is_a_416_that_tells_the_size(digits, wanted):
    """RFC 9110, 15.5.17. With it, ``curl -C -`` of a file that is complete knows that it is."""
    assert range_of(digits, wanted) == (416, "the file has 10 bytes\n", "bytes */10")


@pytest.mark.parametrize(
    "wanted",
    ["", "0-3", "items=0-3", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=3-1", "bytes=1-x", "bytes=--1",
     "bytes=1-2-3", "bytes=+1-2", "bytes=1_0-", "bytes=0x1-2", "bytes=\xb2-3", "bytes 0-3", "bytes=1", "none",
     "bytes=0-1,4-5", "bytes=0-1, -1", "bytes=20-30,40-50", "bytes=0-1;a=b", "bytes=" + "9" * 5000 + "-"],
)  # fmt: skip
def test_what_is_no_single_range_of_bytes_is_ignored(digits, wanted):
    """RFC 9110, 14.2."""
    assert range_of(digits, wanted) == (200, "0123456789", None)


@pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=0-5", "bytes=-5", "bytes=5-"])
def test_an_empty_file_has_no_ranges(digits, wanted):
    assert range_of(digits, wanted, "/empty.bin") == (200, "", None)


def test_a_head_is_about_the_whole_file(digits):
    for wanted in ("bytes=0-3", "bytes=10-", "bytes=x"):
        answer = digits.head("/digits.bin", headers={"Range": wanted})
        assert (answer.status_code, answer.headers["Content-Length"], answer.data) == (200, "10", b"")
        assert answer.headers["Accept-Ranges"] == "bytes"


def test_a_range_of_a_file_that_has_changed_is_the_whole_file(digits):
    whole = digits.get("/digits.bin")
    tag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]
    for same in (tag, modified, f" {tag} "):
        assert range_of(digits, "bytes=0-3", **{"If-Range": same})[0] == 206
        assert range_of(digits, "bytes=10-", **{"If-Range": same})[0] == 416
    for other in ('"other"', f"W/{tag}", tag.strip('"'), "*", "", "Sat, 01 Jan 2050 00:00:00 GMT", "yesterday"):
        for wanted in ("bytes=0-3", "bytes=10-"):
            assert range_of(digits, wanted, **{"If-Range": other})[:2] == (200, "0123456789")


def test_a_file_that_has_not_changed_is_a_304_whatever_range_is_asked_for(digits):
    """RFC 9110, 13.2.2."""
    tag = digits.get("/digits.bin").headers["ETag"]
    for wanted in ("bytes=0-3", "bytes=10-", "bytes=0-1,4-5"):
        answer = digits.get("/digits.bin", headers={"Range": wanted, "If-None-Match": tag})
        assert (answer.status_code, answer.data) == (304, b"")


def test_a_file_that_is_not_there_has_no_ranges(digits):
    assert digits.get("/no", headers={"Range": "bytes=0-3"}).status_code == 404
    assert digits.get("/.env", headers={"Range": "bytes=99-"}).status_code == 404


def test_the_clients_for_browsers_have_ranges_too():
    app = WebSocketApp(serve_client=True, dashboard_token="0123456789abcdef")
    for path in ("/wsthreads.js", "/_wsthreads/wsthreads.js", "/_wsthreads/"):
        client = Browser(app)
        size = len(client.get(path).data)
        assert range_of(client, f"bytes={size}-", path)[::2] == (416, f"bytes */{size}")
        assert range_of(client, "bytes=0-3", path)[::2] == (206, f"bytes 0-3/{size}")
        assert range_of(client, "bytes=0-1,2-3", path)[0] == 200


@pytest.mark.parametrize("there", [0, 4, 10])
def test_curl_continues_a_file_that_is_there_in_part_or_as_a_whole(folder, serve, there):
    (folder / "digits.bin").write_text("0123456789")
    server = serve(WebSocketApp(StaticFiles(folder)))
    copy = folder.parent / "copy"
    copy.write_text("0123456789"[:there])
    command = ["curl", "--silent", "--show-error", "-C", "-", "-o", copy, f"{server.url}/digits.bin"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S)
    assert (done.returncode, done.stderr, copy.read_text()) == (0, "", "0123456789")


def test_what_is_no_file_or_no_get_goes_on(folder):
    def other(environ, start_response):
        start_response("200 OK", [])
        return [b"other ", environ["REQUEST_METHOD"].encode()]

    client = Browser(StaticFiles(folder, other))
    assert client.get("/no").text == "other GET"
    assert client.post("/page.js").text == "other POST"
    assert client.get("/page.js").text == "let x;"


def test_the_directory_has_to_exist(folder):
    with pytest.raises(UsageError, match=r"index\.html: not a directory"):
        StaticFiles(folder / "index.html")
