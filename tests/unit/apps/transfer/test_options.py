"""Options of a transfer.

The typed keywords of the library and the one definition behind them.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest

import fastnet
from fastnet.apps.transfer.options import ReceiveOptions, SendOptions, TransferOptions
from fastnet.errors import ConfigError
from fastnet.transport.tls import TlsOptions

SENDER_ONLY = {"digest", "compress", "streams"}


def hints(options: type) -> dict[str, object]:
    return typing.get_type_hints(options, localns={"TlsOptions": TlsOptions})


def test_keywords_are_the_fields_of_transfer_options() -> None:
    fields = {each.name for each in dataclasses.fields(TransferOptions)}
    assert hints(SendOptions).keys() == fields
    assert hints(ReceiveOptions).keys() == fields - SENDER_ONLY


def test_keywords_have_the_types_of_transfer_options() -> None:
    assert hints(SendOptions) == hints(TransferOptions)


@pytest.mark.parametrize("name", ["send", "serve_files", "receive", "serve_inbox"])
def test_defaults_of_public_functions_print_well(name: str) -> None:
    for parameter in inspect.signature(getattr(fastnet, name)).parameters.values():
        assert "function" not in repr(parameter.default)


@pytest.mark.parametrize("name", ["send", "receive"])
def test_an_unknown_option_is_a_config_error(name: str) -> None:
    arguments = ("file", "unix:socket") if name == "send" else ("unix:socket",)
    with pytest.raises(ConfigError, match="nosuch"):
        getattr(fastnet, name)(*arguments, nosuch=1)
