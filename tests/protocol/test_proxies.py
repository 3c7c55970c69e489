"""What proxies say of a client, in each form in which they write it."""

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.wire import Echo, RawClient, Recorder, endpoint, serving
from wsthreads import WebSocketApp
from wsthreads.protocol.proxies import ProxyHeaders, address_of
from wsthreads.sessions.admission import network_of


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:50001", "203.0.113.7"),  # Azure, IIS
        (" 203.0.113.7:50001\t", "203.0.113.7"),
        ('"203.0.113.7:50001"', "203.0.113.7"),
        ("203.0.113.7:", "203.0.113.7"),
        ("203.0.113.7:_hidden", "203.0.113.7"),
        ("for=203.0.113.7", "203.0.113.7"),
        ('For="203.0.113.7:80"', "203.0.113.7"),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::0001", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("2001:db8:0:0:1:2:3:4:50001", "2001:db8::1:2:3:4"),
        ("2001:db8::1:50001", "2001:db8::1"),
        ("2001:db8::", "2001:db8::"),
        ("2001:db8:::443", "2001:db8::"),
        ("::1", "::1"),
        ("[::1]:80", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%eth0]:80", "fe80::1%eth0"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1:443", "192.0.2.1"),
        ("[::FFFF:192.0.2.1]:443", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("unknown", "unknown"),
        ("unknown:50001", "unknown"),
        ("_secret", "_secret"),
        ("203.0.113.007", "203.0.113.007"),
        ("client.example:50001", "client.example"),
        ("[", "["),
        ("[]:1", "[]"),
        (":", ":"),
        ("", ""),
    ],
)
def test_an_address_has_no_port_however_it_is_written(written, address):
    assert address_of(written) == address
    assert address_of(address) == address


def said(hops, **headers):
    """What an application sees of a request with these X-Forwarded headers."""
    environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_HOST": "inner:8000", "wsgi.url_scheme": "http", "SERVER_PORT": "8000"}
    environ |= {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in headers.items()}
    ProxyHeaders(lambda environ, start_response: [], hops)(environ, None)
    return environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"], environ["SERVER_PORT"]


@pytest.mark.parametrize(
    ("hops", "written", "believed"),
    [
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (1, "198.51.100.1,203.0.113.7 ", "203.0.113.7"),
        (2, "198.51.100.1, 203.0.113.7,10.0.0.9", "203.0.113.7"),
        (1, ", 203.0.113.7", "203.0.113.7"),
        (1, '"198.51.100.1, 203.0.113.7', "203.0.113.7"),  # a quotation mark of the client's
        (1, '"\\", 203.0.113.7', "203.0.113.7"),
        (1, 'x"y, 203.0.113.7', "203.0.113.7"),
        (2, '"1, 203.0.113.7, 10.0.0.9', "203.0.113.7"),
        (2, "203.0.113.7", "10.0.0.1"),  # less than there are proxies: nothing is believed
        (1, "", "10.0.0.1"),
        (1, "203.0.113.7, ", "10.0.0.1"),
    ],
)
def test_of_an_address_the_value_of_the_first_trusted_proxy_is_believed(hops, written, believed):
    assert said(hops, **{"for": written})[0] == believed


@pytest.mark.parametrize(
    ("written", "scheme"),
    [("https", "https"), ("wss", "https"), ("WSS", "https"), ("HTTPS ", "https"), ("http", "http"), ("ws", "http"),
     ('"https"', "https"), ("http, https", "https"), ("https,http", "http"), ("https, wss", "https"), ("ftp", "http"),
     ("", "http"), ("on", "http"), ("https://", "http")],
)  # fmt: skip
def test_the_scheme_of_a_websocket_is_that_of_http(written, scheme):
    assert said(1, proto=written)[1] == scheme


def test_the_host_may_have_a_port():
    assert said(1, host="a.example")[2:] == ("a.example", "8000")
    assert said(1, host="evil.example, a.example:81")[2:] == ("a.example:81", "81")
    assert said(1, host="[::1]")[2:] == ("[::1]", "8000")
    assert said(1, host="[::1]:81")[2:] == ("[::1]:81", "81")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2002:c000:201:abcd::1", "192.0.2.1"),  # 6to4: its owner has 65,536 networks of 64 bits
        ("2002:c000:201::1", "192.0.2.1"),
        ("64:ff9b::c000:201", "192.0.2.1"),  # NAT64: all of IPv4 is in one network of 64 bits
        ("64:ff9b::c000:202", "192.0.2.2"),
        ("unknown", "unknown"),
    ],
)
def test_whoever_has_many_ipv6_addresses_is_one(address, network):
    assert network_of(address) == network


@pytest.mark.parametrize("first", ["203.0.113.7:50001", "[2001:db8::1]:50001", "2001:db8::1", "::ffff:203.0.113.7"])
def test_no_port_gets_a_client_round_the_limit_of_its_address(first):
    others = {
        "203.0.113.7:50001": ["203.0.113.7:50002", "203.0.113.7", '"203.0.113.7:1"', '"1, 203.0.113.7:2'],
        "[2001:db8::1]:50001": ["[2001:db8::1]:50002", "2001:db8::2", "[2001:db8::3]", "2001:DB8:0:0:5::1"],
        "2001:db8::1": ["2001:db8::1:50001", "[2001:db8::1]:2"],
        "::ffff:203.0.113.7": ["203.0.113.7:1", "[::ffff:203.0.113.7]:2", "::ffff:cb00:7107"],
    }[first]
    handler = Recorder()
    with (
        endpoint(handler, trusted_proxies=1, max_sessions_per_address=1) as (_, port),
        RawClient(port, headers={"X-Forwarded-For": first}) as client,
    ):
        assert client.status == 101
        assert ":5000" not in handler.session().remote_addr
        for other in others:
            with RawClient(port, headers={"X-Forwarded-For": other}) as another:
                assert another.status == 429, other
        with RawClient(port, headers={"X-Forwarded-For": "198.51.100.9"}) as another:
            assert another.status == 101


@pytest.mark.parametrize("proto", ["https", "wss", "WSS"])
def test_a_page_without_tls_is_not_ours_where_the_proxy_says_that_there_is_tls(proto):
    headers = {"Host": "a.example", "X-Forwarded-Proto": proto}
    with endpoint(Echo(), trusted_proxies=1) as (_, port):
        for origin, status in (("https://a.example", 101), ("http://a.example", 403)):
            with RawClient(port, headers={**headers, "Origin": origin}) as client:
                assert client.status == status


def test_the_address_of_a_proxy_middleware_of_the_application_s_own_has_no_port_either():
    """As werkzeug's ProxyFix, around the app."""
    handler = Recorder()
    app = WebSocketApp()
    app.add_handler("/ws/test", handler)
    with serving(ProxyFix(app)) as port:
        with RawClient(port, headers={"X-Forwarded-For": "[2001:db8::1]:443"}):
            assert handler.session().remote_addr == "2001:db8::1"
        app.shutdown(2)
