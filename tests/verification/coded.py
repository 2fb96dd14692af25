"""Tickets with a QR code, made by hand: nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import ticketguard as tg
from tests.verification.claims import SECRET, mark, signed, unmarked_ticket
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.claim import MarkClaim
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.qr_code import CodeParameters, QrCode
from ticketguard.ticket import Ticket

SHAPES = {"fc1.weight": (200, 120), "fc2.weight": (60, 200)}
# As in `claims`: the hidden channels.
GROUPS = ((("fc1.weight", 0, 1, 0, 200), ("fc2.weight", 1, 1, 0, 200)),)
TICKET = unmarked_ticket(SHAPES)
SETTINGS = QrCode(text="ACME-1")
PARAMETERS = SETTINGS.parameters(TICKET)
Weights = dict[str, np.ndarray]


def code_mark(parameters: Mapping[str, Any] = PARAMETERS, *, groups: object = None, **changes: Any) -> MarkClaim:
    bound = {} if groups is None else {"channel_groups_digest": groups_digest(groups)}  # type: ignore[arg-type]
    return mark("qr-code", {**parameters, **bound}, **{"reference": TICKET.reference(), **changes})


def code_credential(made: MarkClaim, *others: MarkClaim, groups: object = None) -> tg.Credential:
    return signed(made, *others, groups=groups, reference=TICKET.reference())


def binding_of(made: MarkClaim) -> Binding:
    return Binding(secret=SECRET, commitment=made.commitment)


def text_of(made: MarkClaim) -> str:
    own = {name: value for name, value in made.parameters.items() if name != "channel_groups_digest"}
    return CodeParameters.from_json(own).payload(made.commitment)


def coded_weights(made: MarkClaim, ticket: Ticket = TICKET) -> Weights:
    """Return the weights that a marked ticket starts from."""
    own = {name: value for name, value in made.parameters.items() if name != "channel_groups_digest"}
    planned = SETTINGS.plan(ticket, Start(mask=ticket.mask, weights=ticket.weights), binding_of(made), own)
    return dict(planned.start.weights)


def pruned(weights: Weights, share: float) -> Weights:
    """The smallest weights go, of all layers together."""
    threshold = np.quantile(np.concatenate([np.abs(layer[layer != 0]) for layer in weights.values()]), share)
    return {name: np.where(np.abs(layer) > threshold, layer, 0) for name, layer in weights.items()}


def regrown(weights: Weights, share: float, generator: np.random.Generator) -> Weights:
    """So many edges come anywhere, as large as the others."""
    found = {}
    for name, layer in weights.items():
        flat = layer.reshape(-1).copy()
        alive, empty = flat[flat != 0], np.flatnonzero(flat == 0)
        count = min(len(empty), round(share * len(alive)))
        flat[generator.choice(empty, count, replace=False)] = generator.choice(alive, count)
        found[name] = flat.reshape(layer.shape)
    return found


def without_channels(weights: Weights, share: float, generator: np.random.Generator) -> Weights:
    """So many hidden channels are cut away."""
    left = np.sort(generator.choice(200, round(200 * (1 - share)), replace=False))
    return {"fc1.weight": weights["fc1.weight"][left], "fc2.weight": weights["fc2.weight"][:, left]}


def shuffled(weights: Weights, generator: np.random.Generator) -> Weights:
    """The hidden channels in another order."""
    order = generator.permutation(len(weights["fc1.weight"]))
    return {"fc1.weight": weights["fc1.weight"][order], "fc2.weight": weights["fc2.weight"][:, order]}
