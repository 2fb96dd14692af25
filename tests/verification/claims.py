"""Claims made by hand, without training: whoever makes one here signs it properly, and an error is the rule's alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ticketguard as tg
from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.claim import Claim, MarkClaim, read_claim, sign_claim
from ticketguard.credentials.merkle import merkle_root
from ticketguard.credentials.vault import Vault
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.trigger_set import TriggerRecipe, Triggers, draw_triggers
from ticketguard.errors import UnusableAnswerError
from ticketguard.keyed import commit
from ticketguard.ticket import Mask, Reference, Ticket, TicketInfo

# The same for every run: what is drawn depends on the key.
EVE = tg.Owner(name="Eve", private_key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
SECRET = bytes(range(32))
SHAPES = {"fc1.weight": (200, 60), "fc2.weight": (40, 200)}
# The hidden channels: the rows of one layer are the columns of the next.
GROUPS = ((("fc1.weight", 0, 1, 0, 200), ("fc2.weight", 1, 1, 0, 200)),)
PLANTED = {"secret_ppm": 30_000, "share_ppm": 100_000}
SIGNED = {**PLANTED, "turned_ppm": 80_000}
RECIPE = TriggerRecipe(count=60, classes=10, input_shape=(7,), grid=2, mean_ppm=(500_000,), std_ppm=(250_000,))


def unmarked_ticket(shapes: Mapping[str, tuple[int, ...]] = SHAPES, *, density: float = 0.1, seed: int = 0) -> Ticket:
    generator = np.random.default_rng(seed)
    state = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    mask = Mask(layers={name: generator.random(shape) < density for name, shape in shapes.items()})
    return Ticket(mask=mask, weights=mask.applied(state), rewind_weights=state, info=TicketInfo(method="random"))


TICKET = unmarked_ticket()


def mark(
    scheme: str,
    parameters: Mapping[str, Any],
    *,
    reference: Reference | None = None,
    version: int = 1,
    level_bits: int = 64,
    merkle: bytes | None = None,
) -> MarkClaim:
    """Return a mark of Eve's whose commitment is right."""
    commitment = commit(
        secret=SECRET,
        owner_public_key=EVE.public_key,
        reference_digest=(reference or TICKET.reference()).digest(),
        scheme=scheme,
        version=version,
        level_bits=level_bits,
        parameters=canonical_json(dict(parameters)),
    )
    return MarkClaim(
        scheme=scheme,
        version=version,
        level_bits=level_bits,
        parameters=parameters,
        commitment=commitment,
        merkle_root=merkle,
    )


def planted_mark(
    *, groups: object = None, reference: Reference | None = None, with_signs: bool = False, **changes: Any
) -> MarkClaim:
    """Return a planted graph that binds *groups* if there are any."""
    parameters = SIGNED if with_signs else PLANTED
    bound = {} if groups is None else {"channel_groups_digest": groups_digest(groups)}  # type: ignore[arg-type]
    return mark("planted-graph", {**parameters, **bound}, reference=reference, **changes)


def trigger_mark(recipe: Mapping[str, Any] | None = None, **changes: Any) -> MarkClaim:
    """Return a trigger set with the right root."""
    plain = mark("trigger-set", RECIPE.to_json() if recipe is None else recipe, **changes)
    return dataclasses.replace(plain, merkle_root=merkle_root(triggers_of(plain).leaves()))


def triggers_of(made: MarkClaim) -> Triggers:
    return draw_triggers(Binding(secret=SECRET, commitment=made.commitment), RECIPE)


def signed(
    *marks: MarkClaim,
    groups: object = None,
    reference: Reference | None = None,
    notes: Mapping[str, str] | None = None,
    owner: tg.Owner = EVE,
) -> tg.Credential:
    """Return a claim that its owner signed and a reader read, with its vault."""
    reference = reference or TICKET.reference()
    claim = Claim(
        owner_name=owner.name,
        owner_public_key=owner.public_key,
        created="2026-01-31T12:00:00Z",
        mask_digest=reference.mask.digest(),
        weights_digest=bytes(32),
        marks=marks,
    )
    vault = Vault(secret=SECRET, reference=reference.to_bytes(), channel_groups=groups, notes=notes or {})  # type: ignore[arg-type]
    return tg.Credential(claim=read_claim(sign_claim(claim, owner)), vault=vault)


def marked_weights(made: MarkClaim, ticket: Ticket = TICKET) -> dict[str, np.ndarray]:
    """Return the weights that a marked ticket starts from."""
    settings = tg.PlantedGraph(
        share=PLANTED["share_ppm"] / 1e6,
        secret_share=PLANTED["secret_ppm"] / 1e6,
        signed="turned_ppm" in made.parameters,
    )
    binding = Binding(secret=SECRET, commitment=made.commitment)
    start = Start(mask=ticket.mask, weights=ticket.weights)
    planned = settings.plan(ticket, start, binding, settings.parameters(ticket))
    return dict(planned.start.weights)


def permuted(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights with their hidden channels in another order."""
    order = np.random.default_rng(1).permutation(200)
    return {"fc1.weight": weights["fc1.weight"][order], "fc2.weight": weights["fc2.weight"][:, order]}


class Suspect:
    """Answers question *k* by what *answer* gives for k, and remembers what it was asked."""

    target = "suspect"

    def __init__(self, answer: Callable[[int], int | None]) -> None:
        self.answer = answer
        self.asked: list[np.ndarray] = []

    def predict(self, inputs: np.ndarray, *, classes: int) -> int:
        self.asked.append(inputs)
        answer = self.answer(len(self.asked) - 1)
        if answer is None:
            raise UnusableAnswerError(target=self.target, reason="answered NaN", hint="check it")
        return answer


def evidence(suspect: object, credential: tg.Credential, **options: Any) -> Any:
    """Return the one piece of evidence of a verdict."""
    if isinstance(suspect, Mapping):
        suspect = tg.Checkpoint(suspect)
    (found,) = tg.verify(suspect, credential, **options).evidence  # type: ignore[arg-type]
    return found
