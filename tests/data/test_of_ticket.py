"""What of a ticket's data is used if the ticket was a file, and what needs the user's word."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from ticketguard.data import of_ticket
from ticketguard.errors import ConfigurationError, UntrustedNameError
from ticketguard.ticket import Mask, Ticket, TicketInfo

Loaded = tuple[str, dict[str, Any]]


def ticket_of(data: str, options: dict[str, Any], *, from_file: bool = True) -> Ticket:
    info = TicketInfo(method="imp", data=data, data_options=options)
    return Ticket(
        mask=Mask(layers={"w": np.ones((2, 2), dtype=bool)}),
        weights={"w": np.ones((2, 2), np.float32)},
        rewind_weights=None,
        info=dataclasses.replace(info, from_file=from_file),
    )


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_ticket, "load_data", lambda data, options: (data, options))


@pytest.mark.parametrize(
    ("ticket", "said", "loaded"),
    [
        (("digits", {"image_size": 128}), {}, ("digits", {"image_size": 128})),
        (("digits", {"image_size": 129}), {"options": {"image_size": 129}}, ("digits", {"image_size": 129})),
        (("digits", {"download": True, "seed": 2**31 - 1}), {}, ("digits", {"seed": 2**31 - 1})),
        (("digits", {"folder": "", "test_path": None}), {}, ("digits", {"folder": "", "test_path": None})),
        (("digits", {"folder": "/x"}), {"options": {"folder": "/x"}}, ("digits", {"folder": "/x"})),
        (("os:listdir", {"path": "/x"}), {"data": "os:listdir"}, ("os:listdir", {"path": "/x"})),
        (("os:listdir", {"path": "/x"}), {"data": "digits"}, ("digits", {})),
        (("os:listdir", {"path": "/x"}), {"data": "os:getcwd", "options": {"a": 1}}, ("os:getcwd", {"a": 1})),
        (("/images", {"download": True}), {"data": "/images"}, ("/images", {})),
        (("digits", {"folder": "/x"}), {"data": "digits"}, ("digits", {})),
    ],
)
def test_of_a_file_no_more_is_used_than_was_said(
    ticket: tuple[str, dict[str, Any]], said: dict[str, Any], loaded: Loaded
) -> None:
    assert of_ticket.data_of(ticket_of(*ticket), **said) == loaded


@pytest.mark.parametrize(
    ("ticket", "said", "error"),
    [
        (("digits", {"image_size": 129}), {}, UntrustedNameError),
        (("digits", {"folder": "/x"}), {"options": {"test_path": "/x"}}, UntrustedNameError),
        (("digits", {"test_path": "/x"}), {}, UntrustedNameError),
        (("digits", {"seed": 2**31}), {}, ConfigurationError),
        (("digits", {"seed": -(2**31)}), {}, ConfigurationError),
        (("os:listdir", {}), {}, UntrustedNameError),
        (("os:listdir", {}), {"options": {"path": "/x"}}, UntrustedNameError),
        (("/images", {}), {}, UntrustedNameError),
        (("/images", {"test_path": "/x"}), {"data": "/images"}, UntrustedNameError),
    ],
)
def test_the_rest_of_a_file_is_refused_and_only_of_a_file(
    ticket: tuple[str, dict[str, Any]], said: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        of_ticket.data_of(ticket_of(*ticket), **said)
    data, options = ticket
    of_callers = of_ticket.data_of(ticket_of(*ticket, from_file=False), **said)
    assert of_callers == (data, {**options, **said.get("options", {})})  # type: ignore[comparison-overlap]
