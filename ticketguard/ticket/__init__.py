"""Ticket and Mask: the values everything else passes around, and the ticket file.

Arrays are numpy's, so that reading a ticket or verifying a suspect never pays for torch. A mask's layers
are walked in sorted name order everywhere; a layer is a weight tensor under its state-dict name.
"""

from __future__ import annotations

from ticketguard.tensor_file import METADATA_KEY, Array
from ticketguard.ticket.bits import BoolArray, pack_bits, unpack_bits
from ticketguard.ticket.info import STRUCTURES, TicketInfo
from ticketguard.ticket.mask import FloatArray, Mask, weights_digest
from ticketguard.ticket.masked_tensors import MASK_PREFIX, RESERVED_PREFIX
from ticketguard.ticket.reference import LONGEST_NAME, Reference
from ticketguard.ticket.start_reference import AnyReference, StartReference, read_reference
from ticketguard.ticket.ticket import Ticket

__all__ = [
    "LONGEST_NAME",
    "MASK_PREFIX",
    "METADATA_KEY",
    "RESERVED_PREFIX",
    "STRUCTURES",
    "AnyReference",
    "Array",
    "BoolArray",
    "FloatArray",
    "Mask",
    "Reference",
    "StartReference",
    "Ticket",
    "TicketInfo",
    "pack_bits",
    "read_reference",
    "unpack_bits",
    "weights_digest",
]
