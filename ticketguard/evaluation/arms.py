"""What a ticket is compared with, and which comparisons say something about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ticketguard.errors import ConfigurationError
from ticketguard.ticket import Ticket

DENSE, TICKET, AS_FOUND, ONE_SHOT = "dense", "ticket", "as_found", "one_shot"
ARMS: Mapping[str, str] = {
    DENSE: "the whole network",
    TICKET: "the ticket, from its start weights",
    "reinitialised": "its mask with fresh weights",
    "shuffled": "its mask shuffled within each layer",
    "random_like": "random weights at the same density",
    "inverted": "weights that it prunes, at the same layer densities",
    "scratch_e": "a fresh network of its shape, as many epochs",
    "scratch_b": "a fresh network of its shape, the dense network's FLOPs",
    AS_FOUND: "the ticket's weights as they were found, without training",
    ONE_SHOT: "the trained dense network, pruned once by magnitude and trained again",
}
# What the ticket's arm is where the ticket lacks the weights that it is trained from.
WITHOUT_START = "the ticket, trained on from its trained weights"
# The controls that a winning ticket beats: its start weights are worth something, and so is where its mask lies.
FRESH_ARMS, MASK_ARM = ("reinitialised", "scratch_e"), "shuffled"


def has_start(ticket: Ticket) -> bool:
    """Say whether a ticket holds the weights that it is to be trained from, rather than trained ones alone.

    What was cut out of a supernet as it was trained has no others.
    """
    return ticket.rewind_weights is not None or (ticket.info.ready and ticket.info.structure == "channel")


def chosen_arms(ticket: Ticket, arms: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the arms in the order of `ARMS`, and what is to be said about the choice.

    Raises:
        ConfigurationError: An arm is unknown or says nothing about this ticket, or one that is needed is missing.
    """
    from ticketguard.pruning.methods.controls import can_change  # needs torch

    changes = can_change(ticket.mask)
    structured = ticket.info.structure != "weight"
    if arms is None:
        chosen = {DENSE, TICKET, "scratch_e" if structured else "reinitialised"}
        chosen |= {"shuffled", "random_like"} if changes else set()
        chosen |= {AS_FOUND, ONE_SHOT} if ticket.info.ready and not structured else set()
        chosen |= {AS_FOUND} if ticket.info.ready else set()
        notes = () if changes else ("its mask keeps whole layers: there is nothing to shuffle or to draw at random",)
        return tuple(name for name in ARMS if name in chosen), notes
    if unknown := sorted(set(arms) - set(ARMS)):
        raise ConfigurationError(f"unknown arm '{unknown[0]}', expected one or more of {', '.join(ARMS)}")
    if missing := [name for name in (DENSE, TICKET) if name not in arms]:
        raise ConfigurationError(f"arm '{missing[0]}' is missing: a ticket cannot be judged without it")
    if not changes and (idle := sorted({"shuffled", "inverted", "random_like"} & set(arms))):
        raise ConfigurationError(f"arm '{idle[0]}' is the ticket's own mask, which keeps whole layers: leave it out")
    if structured and ONE_SHOT in arms:
        raise ConfigurationError(
            f"arm '{ONE_SHOT}' prunes single weights, the ticket has whole parts cut: leave it out"
        )
    return tuple(name for name in ARMS if name in arms), ()
