"""Settings: defaults, ranges, and messages that name what is wrong."""

import dataclasses

import pytest

from wsthreads import Config, ConfigError, WebSocketApp


def test_the_defaults_are_those_of_the_design():
    config = Config()
    assert (config.ping_interval_s, config.ping_timeout_s) == (25, 20)
    assert config.max_message_bytes == config.max_outbox_bytes == 1024 * 1024
    assert config.send_timeout_s == config.handshake_timeout_s == config.shutdown_timeout_s == 10
    assert config.close_timeout_s == 5
    assert config.script_timeout_s == 1
    assert config.max_sessions == config.max_rooms_per_session == 1000
    assert config.max_room_name_chars == 256
    assert (config.presence_interval_s, config.presence_grace_s, config.max_presence_bytes) == (0.2, 10, 1024)
    assert (config.max_room_bytes, config.room_keep_s) == (65536, 60)
    assert (config.max_fragments, config.max_control_frames_per_s, config.message_timeout_s) == (16384, 100, 60)
    assert config.max_handshake_bytes == 32768
    assert config.max_messages_per_s == config.idle_timeout_s == config.max_sessions_per_address == 0
    assert config.allowed_origins == config.subprotocols == ()
    assert config.trusted_proxies == 0
    assert config.accept_binary is True
    assert config.compression is False
    assert config.cpu_affinity is None


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().max_sessions = 3


def test_every_setting_has_a_help_text_for_the_command_line():
    for field in dataclasses.fields(Config):
        assert field.metadata["help"], field.name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_message_bytes", 0),
        ("max_message_bytes", -1),
        ("max_message_bytes", 2**31 + 1),
        ("max_outbox_bytes", 0),
        ("send_timeout_s", 0),
        ("send_timeout_s", float("nan")),
        ("send_timeout_s", float("inf")),
        ("close_timeout_s", 1e300),
        ("close_timeout_s", 10**400),
        ("ping_interval_s", -0.5),
        ("max_sessions", 0),
        ("trusted_proxies", 17),
    ],
)
def test_a_number_out_of_range_is_named_with_its_value_and_the_limit(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be at least .*, not ") as caught:
        Config(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_sessions", "10"),
        ("max_sessions", 1.5),
        ("max_sessions", True),
        ("send_timeout_s", "1"),
        ("send_timeout_s", False),
        ("accept_binary", 1),
        ("accept_binary", None),
        ("max_sessions", None),
        ("cpu_affinity", 1),
        ("cpu_affinity", "auto"),
        ("allowed_origins", "https://example.org"),
        ("allowed_origins", 3),
        ("subprotocols", ["a b"]),
        ("subprotocols", [""]),
        ("subprotocols", ["a,b"]),
        ("subprotocols", [b"chat"]),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must "):
        Config(**{name: value})


def test_the_largest_times_that_are_taken_can_be_waited_for():
    fields = [field for field in dataclasses.fields(Config) if field.metadata["kind"] is float]
    high = {field.name: field.metadata["high"] for field in fields}
    for name, top in high.items():
        if name.endswith("_s"):
            assert top * 1000 < 2**31, f"poll(2) takes no more milliseconds than that: {name}"


def test_a_whole_number_will_do_for_seconds():
    config = Config(close_timeout_s=3)
    assert isinstance(config.close_timeout_s, float)
    assert config.close_timeout_s == 3


def test_whether_to_keep_to_a_core_may_be_left_open():
    assert [Config(cpu_affinity=value).cpu_affinity for value in (None, True, False)] == [None, True, False]


def test_lists_become_tuples():
    assert Config(allowed_origins=["https://a.example", "*"]).allowed_origins == ("https://a.example", "*")


def test_an_app_names_a_setting_that_there_is_not_and_those_that_there_are():
    with pytest.raises(ConfigError, match="no such setting: xyz; there are: max_message_bytes, "):
        WebSocketApp(xyz=3)


@pytest.mark.parametrize(
    ("given", "meant"), [("module", "modules"), ("envfile", "env_file"), ("max_session", "max_sessions")]
)
def test_it_suggests_what_was_meant(given, meant):
    with pytest.raises(ConfigError, match=rf"no such setting: {given}; did you mean {meant}\?$"):
        WebSocketApp(**{given: 3})


def test_an_app_takes_either_a_config_or_settings():
    with pytest.raises(ConfigError, match="max_sessions"):
        WebSocketApp(config=Config(), max_sessions=3)


@pytest.mark.parametrize("origin", ["example.org", "https://", "https://example.org/path", "file:///x", "https://u@example.org"])
def test_what_can_never_be_an_origin_is_refused(origin):
    with pytest.raises(ConfigError, match="an origin must look like https://host"):
        Config(allowed_origins=(origin,))


def test_origins_are_any_or_those_of_a_scheme():
    allowed = ("*", "https://example.org", "http://localhost:3000", "chrome-extension://abcdef", "null", "file://")
    assert Config(allowed_origins=allowed).allowed_origins == allowed
