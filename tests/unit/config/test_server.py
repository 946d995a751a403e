"""Settings: one scheme for the command line, files and the environment."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.config.fields import build, from_environment, options, value_type
from fastnet.config.process import ProcessConfig
from fastnet.config.server import ServerConfig
from fastnet.errors import ConfigError

CONFIGS = (ServerConfig, ProcessConfig)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_defaults_are_valid(config: type) -> None:
    config()


@pytest.mark.parametrize("config", CONFIGS)
def test_every_option_has_a_help_and_a_type_that_can_be_written(config: type) -> None:
    for each in options(config):
        assert each.metadata["help"].endswith(".")
        assert value_type(config, each.name) in (str, int, float, bool, tuple)


def test_server_and_process_options_do_not_share_names() -> None:
    assert not {each.name for each in options(ServerConfig)} & {
        each.name for each in options(ProcessConfig)
    }


ANYTHING = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=200),
        st.binary(max_size=9),
    ),
    *(
        st.lists(st.one_of(st.integers(), st.text(max_size=20)), max_size=3),
        st.dictionaries(st.text(), st.integers()),
    ),
)


@pytest.mark.parametrize("config", CONFIGS)
@given(data=st.data())
def test_whatever_a_file_says_is_accepted_or_a_config_error(
    config: type, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([each.name for each in dataclasses.fields(config)]))
    with contextlib.suppress(ConfigError):
        build(config, {name: data.draw(ANYTHING)}, "file")


@pytest.mark.parametrize("config", CONFIGS)
@given(data=st.data())
def test_whatever_the_environment_says_is_accepted_or_a_config_error(
    config: type, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([each.name for each in options(config)]))
    text = data.draw(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
    )
    with contextlib.suppress(ConfigError):
        build(config, from_environment(config, {f"FASTNET_{name.upper()}": text}), "")


def test_the_environment_gives_typed_values() -> None:
    values = {
        "FASTNET_PORT": "7",
        "FASTNET_DRAIN": "1.5",
        "FASTNET_NODELAY": "off",
        "FASTNET_ALLOW": "10.0.0.0/8, ::1",
    }
    assert from_environment(ServerConfig, values) == {
        "port": 7,
        "drain": 1.5,
        "nodelay": False,
        "allow": ("10.0.0.0/8", "::1"),
    }


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("9100", "tcp://127.0.0.1:9100"),
        (":9100", "tcp://:9100"),
        ("[::1]:1", "tcp://[::1]:1"),
        ("h:1", "tcp://h:1"),
    ],
)
def test_metrics_are_on_loopback_unless_an_address_is_given(text: str, where: str) -> None:
    assert str(ProcessConfig(metrics=text).metrics_endpoint) == where


@pytest.mark.parametrize("text", ["", "x", "udp://h:1", "unix:/x", "70000", "h:70000"])
def test_metrics_refuse_what_is_no_tcp_endpoint(text: str) -> None:
    with pytest.raises(ConfigError):
        ProcessConfig(metrics=text)


def test_a_shared_port_is_claimed_first_unless_sharing_was_asked_for() -> None:
    assert not ServerConfig().socket_options.claim
    assert ServerConfig(workers=2).socket_options.claim
    assert ServerConfig(workers=2).socket_options.reuse_port
    assert not ServerConfig(workers=2, reuse_port=True).socket_options.claim
