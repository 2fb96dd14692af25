"""A planted graph and a QR code in one mask: drawn in the order that suits both, and kept like the other edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ticketguard as tg
from tests.verification.claims import unmarked_ticket

TICKET = unmarked_ticket({"0.weight": (200, 120), "2.weight": (60, 200)})


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(120, 200, bias=False), nn.ReLU(), nn.Linear(200, 60, bias=False))


@pytest.mark.parametrize("order", [("graph", "code"), ("code", "graph")])
def test_both_are_whole_and_in_the_claim_in_the_order_that_was_asked_for(order: tuple[str, str]) -> None:
    """The code's positions are given, so it is drawn first; the graph has others to choose from."""
    kinds = {"graph": tg.PlantedGraph(share=0.3, secret_share=0.2), "code": tg.QrCode(text="ACME-1")}
    plan = tg.prepare(TICKET, owner=tg.Owner.generate("Ada"), marks=[kinds[name] for name in order])
    assert [claim.scheme for claim in plan.claims] == [kinds[name].scheme for name in order]
    model = network()
    plan.start(model)
    marked, credential = plan.finish(model, check=False)
    verdict = tg.verify(tg.Checkpoint(marked.weights), credential)
    code = verdict.evidence[order.index("code")]
    assert (code.observed, code.details["pairs_read"], code.details["modules_wrong"]) == (624, 624, 0)
    assert verdict.evidence[order.index("graph")].log10_p < -300
    for name in TICKET.mask:
        assert marked.mask.count(name) == TICKET.mask.count(name)


def test_edges_of_both_are_matched_to_the_edges_that_are_trained() -> None:
    """What a later mark took away is not among the others that planted magnitudes are like."""
    graph, code = tg.PlantedGraph(share=0.1, every_steps=1, rate=1.0), tg.QrCode(text="ACME-1", every_steps=1, rate=1.0)
    plan = tg.prepare(TICKET, owner=tg.Owner.generate("Ada"), marks=[code, graph])
    model = network()
    plan.start(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(3 + torch.rand_like(parameter))
    plan.after_step(model)
    for name in TICKET.mask:
        weights = model.state_dict()[name].numpy()
        assert ((weights != 0) == plan.mask[name]).all()
        # Were zeros among them, some would be matched to zero.
        assert weights[plan.mask[name]].min() >= 3
        assert np.median(weights[plan.mask[name] & ~TICKET.mask[name]]) == pytest.approx(3.5, abs=0.15)
