"""Who gets a 101, and what the others get."""

import base64

import pytest

from tests.programs import connect
from tests.wire import Echo, RawClient, Recorder, endpoint
from wsthreads import HandshakeRefused, Request
from wsthreads.protocol.handshake import check_origin, choose_subprotocol


@pytest.fixture(scope="module")
def port():
    with endpoint(Echo(), allowed_origins=["https://good.example"]) as (_, port):
        yield port


def test_a_good_handshake_gets_a_101_with_the_accept_of_rfc_6455(port):
    with RawClient(port, headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}) as client:
        assert client.status == 101
        assert client.headers["upgrade"].lower() == "websocket"
        assert client.headers["connection"].lower() == "upgrade"
        assert client.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert "sec-websocket-protocol" not in client.headers
        assert "sec-websocket-extensions" not in client.headers
        client.leave()


@pytest.mark.parametrize(
    ("headers", "without", "status", "text"),
    [
        ({}, ["Upgrade"], 400, "this is a WebSocket endpoint"),
        ({"Upgrade": "h2c"}, [], 400, "this is a WebSocket endpoint"),
        ({}, ["Connection"], 400, "Connection: Upgrade"),
        ({"Upgrade": "websocket\xa0"}, [], 400, "this is a WebSocket endpoint"),
        ({"Connection": "keep-alive"}, [], 400, "Connection: Upgrade"),
        ({}, ["Sec-WebSocket-Version"], 400, "version 13"),
        ({"Sec-WebSocket-Version": "8"}, [], 400, "speaks WebSocket version 13, not '8'"),
        ({}, ["Sec-WebSocket-Key"], 400, "Sec-WebSocket-Key"),
        ({"Sec-WebSocket-Key": "short"}, [], 400, "16 bytes in base64"),
        ({"Sec-WebSocket-Key": "!" * 24}, [], 400, "16 bytes in base64"),
        ({"Sec-WebSocket-Key": base64.b64encode(bytes(17)).decode()}, [], 400, "16 bytes in base64"),
        ({"Sec-WebSocket-Protocol": "a b"}, [], 400, "list of tokens"),
        ({"Sec-WebSocket-Protocol": "a\xe9"}, [], 400, "list of tokens"),
        ({"Origin": "https://evil.example"}, [], 403, "'https://evil.example' is not allowed"),
        ({}, ["Host"], 400, "needs the header Host"),
        ({"Host": ""}, [], 400, "Host must be one name or address with an optional port, not ''"),
        ({"Host": "a b"}, [], 400, "not 'a b'"),
        ({"Host": "a@b"}, [], 400, "not 'a@b'"),
        ({"Host": "localhost\r\nHost: localhost"}, [], 400, "not 'localhost,localhost'"),
        ({"Content-Length": "5"}, [], 400, "has no body"),
        ({"Content-Length": "x"}, [], 400, "has no body"),
        ({"Transfer-Encoding": "chunked"}, [], 400, "has no body"),
        ({"Transfer-Encoding": ""}, [], 400, "has no body"),
    ],
)
def test_anything_else_gets_its_status_and_a_text_that_says_why(port, headers, without, status, text):
    with RawClient(port, headers=headers, without=without) as client:
        assert client.status == status
        assert "upgrade" not in client.headers
        if text.startswith("version"):
            assert client.headers["sec-websocket-version"] == "13"
        assert client.headers["content-type"] == "text/plain; charset=utf-8"
        body = client.body()
        assert text in body
        assert int(client.headers["content-length"]) == len(body)


def test_a_uri_in_raw_utf_8_is_refused_and_not_misread(port):
    with RawClient(port, "/ws/test?user=j\xc3\xbcrgen") as client:
        assert (client.status, "percent-encode" in client.body()) == (400, True)


def test_a_post_and_http_1_0_are_refused(port):
    with RawClient(port, method="POST") as client:
        assert (client.status, "not a POST" in client.body()) == (400, True)
    with RawClient(port, version="HTTP/1.0") as client:
        assert (client.status, "HTTP/1.1" in client.body()) == (400, True)


def test_an_older_http_is_refused_whatever_its_number(port):
    with RawClient(port, version="HTTP/0.1") as client:
        assert (client.status, "HTTP/1.1" in client.body()) == (400, True)


def test_header_values_are_read_as_lists_whatever_their_case(port):
    with RawClient(port, headers={"Upgrade": "WebSocket", "Connection": "keep-alive, UPGRADE"}) as client:
        assert client.status == 101
        client.leave()


@pytest.mark.parametrize("host", ["localhost:", "my_app:8000", "[::1]:5000", "LOCALHOST.", "localhost \t"])
@pytest.mark.parametrize("length", ["0", "00", " 0 \t"])
def test_an_odd_host_and_a_body_of_no_bytes_do_no_harm(port, host, length):
    with RawClient(port, headers={"Host": host, "Content-Length": length}) as client:
        assert client.status == 101
        client.leave()


class Looks(Recorder):
    """Looks at the request in each way that there is."""

    def on_handshake(self, request):
        self.seen = [request.get_header("X-User"), request.headers["x-user"], request.environ["HTTP_X_USER"]]


@pytest.mark.parametrize("white", [" ", "\t", " \t  "])
def test_white_space_behind_a_value_is_not_part_of_it(white):
    """RFC 9110, 5.5. Werkzeug's parser leaves it there."""
    handler = Looks()
    names = {"Upgrade": "websocket", "Connection": "Upgrade", "Host": "localhost", "Sec-WebSocket-Version": "13"}
    names |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "b", "X-User": "ann"}
    names |= {"Origin": "http://localhost", "Sec-WebSocket-Extensions": "permessage-deflate"}
    headers = {name: value + white for name, value in names.items()}
    settings = {"subprotocols": ["b"], "compression": True}
    with endpoint(handler, **settings) as (_, port), RawClient(port, headers=headers) as client:
        assert client.status == 101
        assert client.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert client.headers["sec-websocket-protocol"] == "b"
        assert client.headers["sec-websocket-extensions"].startswith("permessage-deflate")
        assert handler.seen == ["ann"] * 3
        client.leave()


def test_an_empty_list_of_subprotocols_is_none(port):
    with RawClient(port, headers={"Sec-WebSocket-Protocol": "a,, b,"}) as client:
        assert client.status == 101
        client.leave()


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "passes"),
    [
        (None, "a.example", "http", True),
        ("http://a.example", "a.example", "http", True),
        ("http://a.example:80", "a.example", "http", True),
        ("http://A.EXAMPLE", "a.example", "http", True),
        ("http://a.example", "a.example:80", "http", True),
        ("https://a.example", "a.example", "https", True),
        ("https://a.example:443", "a.example", "https", True),
        ("http://[::1]:5000", "[::1]:5000", "http", True),
        ("https://a.example", "a.example", "http", True),  # a proxy may have ended TLS
        ("http://a.example", "a.example", "https", False),
        ("http://a.example:81", "a.example", "http", False),
        ("http://b.example", "a.example", "http", False),
        ("http://a.example.evil.example", "a.example", "http", False),
        ("http://evil.example/a.example", "a.example", "http", False),
        ("http://a.example@evil.example", "a.example", "http", False),
        ("http://evil.example@a.example", "a.example", "http", False),
        ("http://a.example, http://evil.example", "a.example", "http", False),
        ("null", "a.example", "http", False),
        ("", "a.example", "http", False),
        ("file://", "a.example", "http", False),
        ("http://", "", "http", False),
        ("http://a.example:x", "a.example", "http", False),
        ("http://a.exam\tple", "a.example", "http", False),
        ("http://a.example\x0c", "a.example", "http", False),
        ("http://a.example\xa0", "a.example", "http", False),
        ("http://a.example?q", "a.example", "http", False),
        ("http://a.example#f", "a.example", "http", False),
        ("HTTP://a.example", "a.EXAMPLE", "http", True),
        ("http://a.example:5000", "a.example:5000", "http", True),
        ("http://a.example:5000", "a.example", "http", False),
        ("http://a.example", "a.example:5000", "http", False),
        ("https://a.example:80", "a.example:80", "http", True),  # a proxy may have ended TLS there
        ("https://a.example:443", "a.example", "http", True),
        ("http://a.example:443", "a.example", "https", False),
        ("http://a.example:0", "a.example", "http", False),
        ("http://a.example:", "a.example", "http", False),
        ("http://a.example:80:80", "a.example", "http", False),
        ("http://a.example:99999999", "a.example", "http", False),
        ("http://a.example:８０", "a.example", "http", False),
        ("http://[::1]", "[::1]", "http", True),
        ("http://[::1]:5000", "[::1]:5001", "http", False),
        ("http://[::1]", "[::2]", "http", False),
        ("http://[::FFFF:1.2.3.4]", "[::ffff:1.2.3.4]", "http", True),
        ("http://::1", "::1", "http", False),
        ("http://[::1", "[::1", "http", False),
        ("http://[a.example]", "[a.example]", "http", False),
        ("http://127.0.0.1", "localhost", "http", False),
        ("http://xn--bcher-kva.example", "XN--BCHER-kva.example", "http", True),
        ("http://bücher.example", "xn--bcher-kva.example", "http", False),
        ("http://bücher.example", "bücher.example", "http", False),
        ("http://a.example.", "a.example.", "http", True),
        ("http://a.example.", "a.example", "http", False),
        ("http://a.example", "a.example.", "http", False),
        ("http://a.example/", "a.example", "http", False),  # no browser writes it so
        ("http://a.example//", "a.example", "http", False),
        ("http://a.example?", "a.example", "http", False),
        ("http://a.example?x=http://a.example", "a.example", "http", False),
        ("http://a.example#x", "a.example", "http", False),
        ("http://a.example\\.evil.example", "a.example", "http", False),
        ("http://evil.example\\@a.example", "a.example", "http", False),
        ("http://a.example:80@evil.example", "a.example", "http", False),
        ("http://@a.example", "a.example", "http", False),
        ("http://:@a.example", "a.example", "http", False),
        ("http://a.exa\tmple", "a.example", "http", False),
        ("http://a.example\n", "a.example", "http", False),
        ("http://a.example evil.example", "a.example", "http", False),
        ("http://a.example,http://a.example", "a.example", "http", False),
        ("http://a%2eexample", "a.example", "http", False),
        ("http:a.example", "a.example", "http", False),
        ("//a.example", "a.example", "http", False),
        ("a.example", "a.example", "http", False),
        ("ftp://a.example", "a.example", "http", False),
        ("ws://a.example", "a.example", "http", False),
        ("javascript://a.example", "a.example", "http", False),
        ("NULL", "null", "http", False),
        ("http://null", "a.example", "http", False),
        ("undefined", "undefined", "http", False),
        ("*", "*", "http", False),
        ("http://*", "*", "http", False),
        ("http://a.example", "a.example, evil.example", "http", False),
        ("http://a.example", "a.example@evil.example", "http", False),
        ("http://a.example", "a.example/", "http", False),
        ("http://a.example", "", "http", False),
        ("http://sub.good.example", "a.example", "http", False),
        ("https://sub.good.example", "a.example", "http", False),
        ("https://good.example.evil.example", "a.example", "http", False),
        ("https://good.example:444", "a.example", "http", False),
        ("HTTPS://GOOD.example", "a.example", "http", True),
        ("https://good.example", "a.example", "http", True),
        ("https://good.example:443", "a.example", "http", True),
        ("http://good.example", "a.example", "http", False),
    ],
)
def test_an_origin_must_be_our_own_or_allowed(origin, host, scheme, passes):
    environ = {"HTTP_HOST": host, "wsgi.url_scheme": scheme}
    if origin is not None:
        environ["HTTP_ORIGIN"] = origin
    if passes:
        check_origin(Request(environ), ("https://good.example",))
    else:
        with pytest.raises(HandshakeRefused, match="403"):
            check_origin(Request(environ), ("https://good.example",))
    check_origin(Request(environ), ("*",))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:5000", 101),
        ("127.0.0.1:5000", 101),
        ("[::1]:5000", 101),
        ("192.0.2.7", 101),
        ("app.localhost:5000", 101),
        ("rebound.evil.example:5000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evillocalhost", 403),
        ("127.0.0.1.", 403),
        ("good.example", 101),
    ],
)
def test_a_page_whose_name_leads_to_this_machine_is_not_ours_unless_it_is_allowed(port, host, status):
    scheme = "https" if host == "good.example" else "http"
    with RawClient(port, headers={"Host": host, "Origin": f"{scheme}://{host}"}) as client:
        assert client.status == status
        if status == 403:
            assert "points to this machine" in client.body()


def test_behind_a_trusted_proxy_any_name_may_be_ours():
    headers = {"Host": "chat.example", "Origin": "http://chat.example"}
    for settings, status in (({}, 403), ({"trusted_proxies": 1}, 101)):
        with endpoint(Echo(), **settings) as (_, port), RawClient(port, headers=headers) as client:
            assert client.status == status


def test_the_first_subprotocol_that_is_spoken_and_offered_is_taken():
    assert choose_subprotocol(("a", "b"), ("b", "a")) == "b"
    assert choose_subprotocol(("a",), ("b",)) is None
    assert choose_subprotocol((), ("b",)) is None


def test_subprotocols_are_negotiated_with_an_independent_client():
    handler = Recorder()
    with endpoint(handler, subprotocols=["chat.v2", "chat.v1"]) as (_, port):
        url = f"ws://127.0.0.1:{port}/ws/test"
        with connect(url, subprotocols=["chat.v1", "chat.v2"]) as client:
            assert client.subprotocol == "chat.v2"
            assert handler.session().subprotocol == "chat.v2"
        with connect(url, subprotocols=["other"]) as client:
            assert client.subprotocol is None
        with RawClient(port, headers={"Sec-WebSocket-Protocol": "chat.v1"}) as client:
            assert client.headers["sec-websocket-protocol"] == "chat.v1"


class Doorman(Recorder):
    """Does what the client asks for."""

    def on_handshake(self, request):
        wish = request.get_parameter("wish")
        request.attributes["wish"] = wish
        if wish == "raise":
            raise HandshakeRefused(429, "slow down", [("Retry-After", "7")])
        if wish == "fail":
            raise ValueError("secret")
        return {"false": False, "401": 401, "proto": "b", "true": True, "nonsense": object()}.get(wish)


@pytest.mark.parametrize(
    ("wish", "status", "body"),
    [
        ("false", 403, "refused\n"),
        ("401", 401, "refused\n"),
        ("raise", 429, "slow down\n"),
        ("fail", 500, "the handler failed\n"),
        ("nonsense", 500, "the handler failed\n"),
    ],
)
def test_on_handshake_refuses_before_the_upgrade(wish, status, body):
    handler = Doorman()
    with endpoint(handler) as (app, port), RawClient(port, f"/ws/test?wish={wish}") as client:
        assert (client.status, client.body()) == (status, body)
        assert client.headers.get("retry-after") == ("7" if wish == "raise" else None)
        assert app.session_count == 0, "its place was not given back"
        assert app.metrics.snapshot()[f"handshakes_refused_{status}"] == 1
        assert handler.opened.empty()


@pytest.mark.parametrize("wish", ["true", "none"])
def test_on_handshake_lets_in_and_its_attributes_are_the_sessions(wish):
    handler = Doorman()
    with endpoint(handler) as (_, port), RawClient(port, f"/ws/test?wish={wish}") as client:
        assert client.status == 101
        assert handler.session().attributes == {"wish": wish}


def test_on_handshake_chooses_a_subprotocol_among_those_that_were_offered():
    handler = Doorman()
    with endpoint(handler) as (_, port):
        with connect(f"ws://127.0.0.1:{port}/ws/test?wish=proto", subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "b"
        with RawClient(port, "/ws/test?wish=proto") as client:
            assert client.status == 500


def test_a_session_that_ends_has_given_its_place_back(port):
    with RawClient(port) as client:
        client.leave()


def test_requests_read_their_environ():
    request = Request(
        {"SCRIPT_NAME": "/app", "PATH_INFO": "/\xc3\xa9", "QUERY_STRING": "a=1&a=2", "CONTENT_TYPE": "text/x"}
    )
    assert request.request_path == "/app/é"
    assert request.get_header("content-type") == "text/x"
    assert request.headers == {"content-type": "text/x"}
    assert request.remote_addr == ""
    assert request.parameters == {"a": "1"}
    assert Request({}).request_path == "/"


def test_only_so_many_parameters_are_read():
    request = Request({"QUERY_STRING": "&".join(f"p{n}=" for n in range(5000))})
    assert request.get_parameter("p999") == ""
    assert request.get_parameter("p1000") is None


def test_an_origin_of_a_scheme_without_a_port_can_be_allowed():
    request = Request({"HTTP_ORIGIN": "chrome-extension://abcdef", "HTTP_HOST": "example.org"})
    check_origin(request, ("chrome-extension://abcdef",))
    with pytest.raises(HandshakeRefused):
        check_origin(request, ("chrome-extension://other",))


@pytest.mark.parametrize("origin", ["null", "file://"])
def test_the_origin_of_pages_without_one_can_be_allowed_and_only_by_its_name(origin):
    request = Request({"HTTP_ORIGIN": origin, "HTTP_HOST": origin.removesuffix("://")})
    check_origin(request, ("https://good.example", origin))
    check_origin(request, ("*",))
    other = {"null": "file://", "file://": "null"}[origin]
    for allowed in ((), ("https://good.example", other), (f"http://{origin.removesuffix('://')}",)):
        with pytest.raises(HandshakeRefused, match="is not allowed here"):
            check_origin(request, allowed)
