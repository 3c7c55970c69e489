from __future__ import annotations

import pytest

from tests.programs import Browser
from wsthreads import UsageError
from wsthreads.static import StaticFiles


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
