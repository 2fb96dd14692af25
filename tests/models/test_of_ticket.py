"""How large a model or input a ticket's file may ask for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from torch import nn

from ticketguard.errors import ConfigurationError, UntrustedNameError
from ticketguard.models import of_ticket
from ticketguard.ticket import Mask, Ticket, TicketInfo


def ticket_of(shape: tuple[int, ...], *, from_file: bool) -> Ticket:
    info = TicketInfo(method="imp", model="mlp", input_shape=shape)
    return Ticket(
        mask=Mask(layers={"w": np.ones((2, 2), dtype=bool)}),
        weights={"w": np.ones((2, 2), np.float32)},
        rewind_weights=None,
        info=dataclasses.replace(info, from_file=from_file),
    )


def test_inputs_of_a_file_are_run_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_ticket, "model_of", lambda ticket, model=None: nn.Identity())
    monkeypatch.setattr(of_ticket, "load_arrays", lambda network, weights: None)
    of_ticket.trained_network(ticket_of((2**10, 2**10), from_file=True))
    of_ticket.trained_network(ticket_of((2**20 + 1,), from_file=False))
    with pytest.raises(UntrustedNameError, match="more than 1048576 values"):
        of_ticket.trained_network(ticket_of((2**20 + 1,), from_file=True))


@pytest.mark.parametrize(("values", "tensors"), [(20, 4), (21, 5)])
def test_a_model_is_built_up_to_its_bounds(values: int, tensors: int) -> None:
    def build() -> None:
        nn.Linear(3, 4)  # 12 and 4 values
        nn.Linear(1, 2)  # 2 and 2

    with of_ticket._counted("m", values=values, tensors=tensors):
        build()
    for fewer in ((19, tensors), (values, 3)):
        with (
            pytest.raises(ConfigurationError, match="far more than the ticket has"),
            of_ticket._counted("m", values=fewer[0], tensors=fewer[1]),
        ):
            build()
    build()  # nothing is counted any more
