"""Find winning lottery tickets, write their owner's mark into them, and prove ownership of a stolen copy.

The way of the data is one line: ``find → Ticket → embed → (marked Ticket, Credential) → … → verify → Verdict``.

    >>> import ticketguard as tg
    >>> recipe = tg.TrainingConfig(epochs=4, learning_rate=0.1)
    >>> ticket = tg.find("mlp", data="digits", density=0.2, training=recipe)
    >>> round(ticket.mask.density, 2)
    0.2
    >>> marked, credential = tg.embed(ticket, owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()])
    >>> tg.verify(tg.Checkpoint(marked.weights), credential).status
    'supported'
    >>> tg.verify(tg.Checkpoint(ticket.weights), credential).status
    'not_supported'

Names are loaded when they are first used: importing ticketguard, reading a ticket and verifying a
safetensors suspect never pay for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketguard.lazily import loader

if TYPE_CHECKING:
    from ticketguard.checkpoints.checkpoints import Checkpoint
    from ticketguard.credentials.credential import Credential, load_credential
    from ticketguard.credentials.keys import Owner, load_public_key
    from ticketguard.credentials.vault_key import VaultKey
    from ticketguard.data import Dataset
    from ticketguard.embedding.keyed_signs import KeyedSigns
    from ticketguard.embedding.planted_graph import PlantedGraph
    from ticketguard.embedding.qr_code import QrCode
    from ticketguard.embedding.trigger_set import TriggerSet
    from ticketguard.errors import NoAnswerError, TicketguardError, TicketguardWarning
    from ticketguard.evaluation import TicketCheck, check_ticket
    from ticketguard.evaluation.measuring import Measurement, measure
    from ticketguard.interchange.importing import import_checkpoint
    from ticketguard.interchange.programs import export_program
    from ticketguard.interchange.weights import export_weights
    from ticketguard.marking.choosing import MarkChoice, choose_marks
    from ticketguard.marking.plan import Plan, prepare
    from ticketguard.marking.sign_start import SignedStart, sign_start
    from ticketguard.pipeline import Judge, embed, find, find_marked, verify
    from ticketguard.predictors import CallablePredictor, HttpPredictor, OnnxPredictor, Predictor
    from ticketguard.ticket import Mask, Ticket, TicketInfo
    from ticketguard.training import TrainingConfig
    from ticketguard.verification.verdict import Evidence, Verdict

__version__ = "0.1.0"

__all__ = [
    "CallablePredictor",
    "Checkpoint",
    "Credential",
    "Dataset",
    "Evidence",
    "HttpPredictor",
    "Judge",
    "KeyedSigns",
    "MarkChoice",
    "Mask",
    "Measurement",
    "NoAnswerError",
    "OnnxPredictor",
    "Owner",
    "Plan",
    "PlantedGraph",
    "Predictor",
    "QrCode",
    "SignedStart",
    "Ticket",
    "TicketCheck",
    "TicketInfo",
    "TicketguardError",
    "TicketguardWarning",
    "TrainingConfig",
    "TriggerSet",
    "VaultKey",
    "Verdict",
    "__version__",
    "check_ticket",
    "choose_marks",
    "embed",
    "export_program",
    "export_weights",
    "find",
    "find_marked",
    "import_checkpoint",
    "load_credential",
    "load_public_key",
    "measure",
    "prepare",
    "sign_start",
    "verify",
]

# Where each public name lives, for the loading on first use (PEP 562); a test keeps the three lists alike.
_HOMES = {
    "CallablePredictor": "ticketguard.predictors",
    "Checkpoint": "ticketguard.checkpoints.checkpoints",
    "Credential": "ticketguard.credentials.credential",
    "Dataset": "ticketguard.data",
    "Evidence": "ticketguard.verification.verdict",
    "HttpPredictor": "ticketguard.predictors",
    "Judge": "ticketguard.pipeline",
    "KeyedSigns": "ticketguard.embedding.keyed_signs",
    "MarkChoice": "ticketguard.marking.choosing",
    "Mask": "ticketguard.ticket",
    "Measurement": "ticketguard.evaluation.measuring",
    "NoAnswerError": "ticketguard.errors",
    "OnnxPredictor": "ticketguard.predictors",
    "Owner": "ticketguard.credentials.keys",
    "Plan": "ticketguard.marking.plan",
    "PlantedGraph": "ticketguard.embedding.planted_graph",
    "Predictor": "ticketguard.predictors",
    "QrCode": "ticketguard.embedding.qr_code",
    "SignedStart": "ticketguard.marking.sign_start",
    "Ticket": "ticketguard.ticket",
    "TicketCheck": "ticketguard.evaluation",
    "TicketInfo": "ticketguard.ticket",
    "TicketguardError": "ticketguard.errors",
    "TicketguardWarning": "ticketguard.errors",
    "TrainingConfig": "ticketguard.training",
    "TriggerSet": "ticketguard.embedding.trigger_set",
    "VaultKey": "ticketguard.credentials.vault_key",
    "Verdict": "ticketguard.verification.verdict",
    "check_ticket": "ticketguard.evaluation",
    "choose_marks": "ticketguard.marking.choosing",
    "embed": "ticketguard.pipeline",
    "export_program": "ticketguard.interchange.programs",
    "export_weights": "ticketguard.interchange.weights",
    "find": "ticketguard.pipeline",
    "find_marked": "ticketguard.pipeline",
    "import_checkpoint": "ticketguard.interchange.importing",
    "load_credential": "ticketguard.credentials.credential",
    "load_public_key": "ticketguard.credentials.keys",
    "measure": "ticketguard.evaluation.measuring",
    "prepare": "ticketguard.marking.plan",
    "sign_start": "ticketguard.marking.sign_start",
    "verify": "ticketguard.pipeline",
}


__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    """List the public names whether or not they are loaded."""
    return sorted({*globals(), *__all__})
