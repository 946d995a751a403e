"""Endpoints: every spelling in, one spelling back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost:7", Endpoint("tcp", "localhost", 7)),
        ("tcp://127.0.0.1:0", Endpoint("tcp", "127.0.0.1", 0)),
        ("TCP://h:65535", Endpoint("tcp", "h", 65535)),
        ("udp://h:53", Endpoint("udp", "h", 53)),
        ("tcp://:7", Endpoint("tcp", "", 7)),
        ("[::1]:7", Endpoint("tcp", "::1", 7)),
        ("tcp://[fe80::1%eth0]:7", Endpoint("tcp", "fe80::1%eth0", 7)),
        ("unix:/run/x", Endpoint("unix", path="/run/x")),
        ("unix:@name", Endpoint("unix", path="@name")),
        ("unixgram:/run/x", Endpoint("unixgram", path="/run/x")),
        ("UNIXGRAM:@name", Endpoint("unixgram", path="@name")),
        ("unix:tcp://x:1", Endpoint("unix", path="tcp://x:1")),
    ],
)
def test_a_spelling_is_read_and_written_back(text: str, found: Endpoint) -> None:
    assert Endpoint.parse(text) == found
    assert Endpoint.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "h",
            "h:",
            "h:x",
            "h:-1",
            "h:65536",
            "h:\u0661",
            "h: 7",
            "::1:7",
            "[::1]",
            "[::1]7",
            "[::1:7",
        ),
        *("http://h:1", "unix:", "unixgram:", "unix:" + "x" * 108, "unix:a\0b"),
    ],
)
def test_a_bad_spelling_is_a_config_error_with_a_hint(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(text)
    assert caught.value.hint


@given(st.text())
def test_any_text_is_an_endpoint_or_a_config_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except ConfigError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint
