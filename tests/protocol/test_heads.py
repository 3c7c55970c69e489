"""Which heads of requests are taken, and which are refused since they can be read in two ways."""

import pytest

from wsthreads.protocol.heads import BadHead, check_request_line, check_trailer, chunk_size, clean_fields, is_host


def judge_all(head):
    first, *lines = head.encode("latin-1").splitlines(keepends=True)
    return clean_fields(check_request_line(first).version, lines)


def judge(*headers, line="GET / HTTP/1.1", host="Host: a.example", end="\r\n"):
    fields = [*([host] if host is not None else []), *headers, ""]
    version = check_request_line((line + end).encode("latin-1")).version
    taken = clean_fields(version, [(field + end).encode("latin-1") for field in fields])
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in taken) + b"\r\n"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("A: b", b"A: b"),
        ("A:b", b"A: b"),
        ("A: b ", b"A: b"),
        ("A:\t b \t ", b"A: b"),
        ("A:", b"A: "),
        ("A: \t ", b"A: "),
        ("A: b  c\td", b"A: b  c\td"),
        ("A: b:c : d", b"A: b:c : d"),
        ("A: \xfcber", b"A: \xfcber"),
        ("A: \xa0b\xa0", b"A: \xa0b\xa0"),  # no white space of HTTP's
        ("A: b\x85c", b"A: b\x85c"),
        ("!#$%&'*+-.^_`|~09azAZ: x", b"!#$%&'*+-.^_`|~09azAZ: x"),
        ("Content-Length: 0", b"Content-Length: 0"),
        ("content-length:\t007 ", b"content-length: 007"),
        ("Content-Length: " + "9" * 18, b"Content-Length: " + b"9" * 18),
        ("Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        ("Transfer-Encoding: Chunked\t", b"Transfer-Encoding: Chunked"),
    ],
)
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_value_has_no_white_space_around_it(given, taken, end):
    assert judge(given, end=end) == b"Host: a.example\r\n" + taken + b"\r\n\r\n"


@pytest.mark.parametrize(
    "header",
    [
        "no colon", "", " Folded: x", "\tFolded: x", "Name : x", "Name\t: x", ": x", "Na me: x", "Na\x00me: x",
        "Na\xfcme: x", "Name\x0b: x", "(comment): x", "A: b\rC: d", "A: b\r", "A: \x00", "A: b\x0bc", "A: \x7f",
        "A: \x1b[2J", "Content-Length: ", "Content-Length: 1, 1", "Content-Length: +1", "Content-Length: -1",
        "Content-Length: 0x1", "Content-Length: 1_0", "Content-Length: 1 0", "Content-Length: \xb2",
        "Content-Length: " + "9" * 19, "Content-Length: " + "0" * 5000 + "1",
        "Transfer-Encoding: ", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \xa0chunked", "Transfer-Encoding: chunked,", "Host: a.example", "HOST: b.example",
        "host : b.example",
    ],
)  # fmt: skip
def test_a_malformed_or_ambiguous_header_is_refused(header):
    with pytest.raises(BadHead) as caught:
        judge(header)
    assert caught.value.status == 400


def test_what_says_twice_how_long_the_body_is_is_refused():
    for twice in (
        ["Content-Length: 1", "Content-Length: 1"],
        ["Content-Length: 1", "content-length: 2"],
        ["Content-Length: 1", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ):
        with pytest.raises(BadHead) as caught:
            judge(*twice)
        assert caught.value.status == 400
    with pytest.raises(BadHead) as caught:
        judge("Transfer-Encoding: gzip, chunked")
    assert caught.value.status == 501
    with pytest.raises(BadHead):
        judge("Transfer-Encoding: chunked", line="POST / HTTP/1.0")


@pytest.mark.parametrize(
    "line",
    ["GET / HTTP/1.1", "GET /a?b=c#d HTTP/1.1", "OPTIONS * HTTP/1.1", "OPTIONS / HTTP/1.1",
     "GET http://a.example/ HTTP/1.1", "GET HTTPS://[::1]:80?a HTTP/1.1", "GET http://a.example HTTP/1.1",
     "M-SEARCH / HTTP/1.1", "GET /%C3%BC HTTP/1.1", "GET //a HTTP/1.1", "GET /http://a,b HTTP/1.1",
     "GET /%zz%00|^{}\" HTTP/1.1", "get / HTTP/1.0", "GET / HTTP/0.9"],
)  # fmt: skip
def test_request_lines_of_all_forms_are_taken(line):
    assert judge(line=line)


@pytest.mark.parametrize(
    "line",
    ["GET /", "GET", "", " GET / HTTP/1.1", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", "GET /\tHTTP/1.1",
     "GET / a HTTP/1.1", "GET /\x00 HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /\r HTTP/1.1", "GE:T / HTTP/1.1",
     "G\xcbT / HTTP/1.1", "GET / http/1.1", "GET / HTTP/1", "GET / HTTP/1.10", "GET / HTTP/\xb9.1", "GET / HTTP/1.1\r",
     "GET http://[ HTTP/1.1", "\x16\x03\x01\x02",
     "GET /\xc3\xbc HTTP/1.1", "GET /?\xfc HTTP/1.1", "GET http://\xe2\x84\x80.example/ HTTP/1.1",
     "GET ws HTTP/1.1", "GET javascript:alert(1) HTTP/1.1", "GET * HTTP/1.1", "OPTIONS ** HTTP/1.1", "GET ?a HTTP/1.1",
     "CONNECT a.example:80 HTTP/1.1", "CONNECT / HTTP/1.1", "GET a.example:80 HTTP/1.1", "GET http:/a HTTP/1.1",
     "GET ftp://a.example/ HTTP/1.1", "GET http:///a HTTP/1.1", "GET http://a,b\"<>/ HTTP/1.1",
     "GET http://u:p@a.example/ HTTP/1.1", "GET http://a:b/ HTTP/1.1", "GET http://[::1]x/ HTTP/1.1",
     "GET http://a,b#/ HTTP/1.1", "GET http://a\\b/ HTTP/1.1"],
)  # fmt: skip
def test_any_other_request_line_is_refused(line):
    with pytest.raises(BadHead) as caught:
        judge(line=line)
    assert caught.value.status == 400


@pytest.mark.parametrize("line", ["PRI * HTTP/2.0", "GET / HTTP/3.0", "GET / HTTP/2.1"])
def test_a_later_version_of_http_is_a_505(line):
    with pytest.raises(BadHead) as caught:
        judge(line=line, host=None)
    assert caught.value.status == 505


def test_a_head_that_ends_in_its_midst_is_refused():
    for head in ("GET / HTTP/1.1", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\nHost: a\r\n"):
        with pytest.raises(BadHead, match="Incomplete"):
            judge_all(head)


def test_a_head_that_is_too_long_is_a_431():
    for headers in (["A: b"] * 100, ["A: " + "b" * 65536]):
        with pytest.raises(BadHead) as caught:
            clean_fields((1, 1), [*(f"{header}\r\n".encode()[:65537] for header in headers), b"\r\n"])
        assert caught.value.status == 431


GOOD_HOSTS = [
    "localhost", "localhost:5000", "localhost:", "a.example", "A.Example.", "my_app:8000", "127.0.0.1:80", "[::1]",
    "[::1]:5000", "[2001:DB8::1]:", "[fe80::1%25eth0]:80", "[fe80::1%eth0]", "[::ffff:192.0.2.1]",
    "xn--bcher-kva.example", "b%C3%BCcher.example", "a~b", "a.example:0443", "0", "a" * 300,
]  # fmt: skip
BAD_HOSTS = [
    "", " ", ":80", "a b", "a,b", "a.example, b.example", "a@b", "http://a.example", "a/b", "a?b", "a#b", "a\\b", "[",
    "[]", "[::1", "::1", "[::1]x", "[a.example]", "a:b", "a:80:80", "a:-1", "b\xfccher.example", "a\x01b", "a%", "a%2",
    '"a"', "a.example:８０", "<a>", "a|b", "{a}", "a^b", "a`b",
]  # fmt: skip


def test_a_host_is_a_name_or_an_address_and_perhaps_a_port():
    assert [host for host in GOOD_HOSTS if not is_host(host)] == []
    assert [host for host in BAD_HOSTS if is_host(host)] == []


def test_a_request_has_one_valid_host_and_one_of_http_1_0_may_have_none():
    for version in ("1.0", "1.1"):
        line = f"GET / HTTP/{version}"
        assert judge(line=line, host="Host: [::1]:5000 ")
        for bad in ("Host:", "Host: a,b", "Host: a b", "Host: a@b", "Host: a\r\nHost: a"):
            with pytest.raises(BadHead, match="Host"):
                judge_all(f"{line}\r\n{bad}\r\n\r\n")
    assert judge(line="GET / HTTP/1.0", host=None) == b"\r\n"
    with pytest.raises(BadHead, match="Missing header: Host"):
        judge(host=None)


def test_cookies_of_several_lines_are_one_list_and_what_has_one_value_comes_once():
    """RFC 9113, 8.2.3: HTTP/2 has a line for each. RFC 9110, 5.3: only lists are joined by commas."""
    assert judge("Cookie: a=1", "B: c", "cookie: b=2,3 ", "Cookie:", "COOKIE: c=4") == (
        b"Host: a.example\r\nB: c\r\nCookie: a=1; b=2,3; c=4\r\n\r\n"
    )
    assert judge("cookie: a=1; b=2") == b"Host: a.example\r\ncookie: a=1; b=2\r\n\r\n"
    assert judge("Accept: a", "Accept: b") == b"Host: a.example\r\nAccept: a\r\nAccept: b\r\n\r\n"
    for name in ("Authorization", "Proxy-Authorization", "Content-Type"):
        assert judge(f"{name}: a")
        with pytest.raises(BadHead, match=f"more than one {name}"):
            judge(f"{name}: a", f"{name.upper()}: b")


def test_the_size_of_a_chunk_is_a_hexadecimal_number_and_its_line_ends_with_cr_lf():
    sizes = {"0": 0, "3": 3, "00aF": 175, "f" * 15: 16**15 - 1, "3;a=b": 3, "3 ;a": 3, '3;a="b;c"\t': 3, "3;": 3}
    assert {given: chunk_size(f"{given}\r\n".encode()) for given in sizes} == sizes
    for bad in ("", "0x3", "+3", "-3", "0_3", " 3", "3 ", "3 a", "g", "\xb2", "1" * 16, ";a", "3\r", "3;a\rb", "3;\0"):
        with pytest.raises(BadHead, match="chunk"):
            chunk_size(f"{bad}\r\n".encode("latin-1"))
    for end in ("", "\n", "\r"):
        with pytest.raises(BadHead, match="chunk"):
            chunk_size(f"3{end}".encode())


def test_a_trailer_is_a_header_line_that_ends_with_cr_lf():
    assert check_trailer(b"A: b\r\n")
    assert not check_trailer(b"\r\n")
    for bad in (b"", b"\n", b"A: b\n", b"A b\r\n", b" A: b\r\n", b"A: b\rc\r\n"):
        with pytest.raises(BadHead):
            check_trailer(bad)
