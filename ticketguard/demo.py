"""The whole story on a small data set: find a ticket, mark it, steal it, and judge.

Three thefts must be distinguished from an innocent model of the same task, and from a wrong owner's claim to a copy.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ticketguard.attacks.forgery.own_marks import OwnMarks
from ticketguard.attacks.interface import Published, Removal, Victim
from ticketguard.attacks.removal.fine_tuning import FineTuning
from ticketguard.attacks.removal.pruning import MagnitudePruning
from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import ENCRYPTED_LABEL, Owner
from ticketguard.data import Dataset, load_data
from ticketguard.errors import FileError, TicketguardError
from ticketguard.files import write_whole
from ticketguard.interchange.weights import export_weights
from ticketguard.models import load_arrays, model_of
from ticketguard.pipeline import embed, find, verify
from ticketguard.predictors import CallablePredictor
from ticketguard.reporting.documents import secret_positions
from ticketguard.reporting.plots import draw_before_after
from ticketguard.reporting.text import STATUS_WORDS, log10_text, table_lines
from ticketguard.seeds import drawn_seed
from ticketguard.ticket import Array, FloatArray, Ticket
from ticketguard.training import Progress, TrainingConfig, evaluate, train
from ticketguard.verification.verdict import Verdict

DEMO_VERSION = "ticketguard.demo/2"
# The demo's vault holds nothing worth hiding; a real one deserves a real passphrase.
PASSPHRASE = "demo"  # noqa: S105
MODEL = "mlp"
DATA = "digits"
DENSITY = 0.1
# Long enough for the triggers to sit, short enough for a minute.
TRAINING: Mapping[str, Any] = {"epochs": 80}
ROUNDS: Mapping[str, Any] = {"level_epochs": 20}
FINE_TUNING: Mapping[str, Any] = {"epochs": 5, "learning_rate": 0.01, "schedule": "constant"}
PRUNED_SHARE = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One suspect and claim, judged by weights and answers together.

    Attributes:
        suspect: What it is, in words.
        derives: Whether it really derives from the ticket that the claim marks.
        owner: Who claims it.
        accuracy: The suspect's test accuracy, in [0, 1].
        verdict: The verdict from its weights and its answers.
    """

    suspect: str
    derives: bool
    owner: str
    accuracy: float
    verdict: Verdict

    @property
    def as_expected(self) -> bool:
        """Whether thefts and innocence are told apart."""
        return (self.verdict.status == "supported") == self.derives


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """What happened.

    Attributes:
        folder: Where everything was written.
        seconds: How long it took.
        ticket: The ticket that was found.
        marked: The ticket that was released.
        rows: Every judgement.
        pictures: Files with pictures.
    """

    folder: Path
    seconds: float
    ticket: Ticket
    marked: Ticket
    rows: tuple[Row, ...]
    pictures: tuple[Path, ...]

    @property
    def as_expected(self) -> bool:
        """Whether every judgement is right."""
        return all(row.as_expected for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``docs/schema/demo.json`` describes."""
        return {
            "version": DEMO_VERSION,
            "folder": str(self.folder),
            "seconds": self.seconds,
            "density": self.ticket.mask.density,
            "ticket_accuracy": self.ticket.info.accuracy,
            "marked_accuracy": self.marked.info.accuracy,
            "as_expected": self.as_expected,
            "pictures": [str(path) for path in self.pictures],
            "rows": [
                {
                    "suspect": row.suspect,
                    "derives": row.derives,
                    "owner": row.owner,
                    "accuracy": row.accuracy,
                    "verdict": row.verdict.to_json(),
                }
                for row in self.rows
            ],
        }


def run_demo(folder: Path, *, seed: int | None = None, progress: Progress | None = None) -> Story:
    """Play the story and write its files into *folder*: ticket, keys, claim, vault, suspects, verdicts, pictures.

    Args:
        folder: Created if need be; files of an earlier demo are replaced.
        seed: Fixes everything but the owners' keys and secrets; by default drawn.
        progress: Where progress is shown.

    Raises:
        FileError: *folder* cannot be written to, or holds keys, tickets or vaults that no demo wrote.
    """
    started = time.monotonic()
    seed = drawn_seed() if seed is None else seed
    ada, eve = _new_owner("Ada", folder), Owner.generate("Eve")
    data = load_data(DATA, options={})
    ticket = find(
        MODEL, data=DATA, density=DENSITY, training=TRAINING, method_options=ROUNDS, seed=seed, progress=progress
    )
    marked, credential = embed(ticket, owner=ada, seed=seed, progress=progress)
    ticket.save(folder / "ticket.safetensors")
    credential.save(folder / "claim.json", folder / "vault.age", ada, PASSPHRASE)
    marked.save(folder / "marked.safetensors", release=True)

    stand = _Stand(folder=folder, data=data, ticket=marked, seed=seed)
    rows = [stand.judge("copy of the marked ticket", marked.weights, credential, derives=True)]
    for attack in _thefts(TrainingConfig.from_json(ticket.info.training)):
        stolen = attack.run(stand.victim, generator=np.random.default_rng(seed))
        rows.append(stand.judge(attack.name, stolen.weights, credential, derives=True))
    innocent = train(stand.network(seed + 1), data, TrainingConfig.from_json(ticket.info.training), seed=seed + 1)
    rows.append(stand.judge("innocent model of the same task", innocent.state, credential, derives=False))
    published = Published(ticket=marked, claim=credential.claim, build=stand.network)
    forged = OwnMarks(forger=eve).run(published, generator=np.random.default_rng())
    rows.append(stand.judge("copy, claimed by a wrong owner", marked.weights, forged, derives=False))

    picture = folder / "masks.png"
    draw_before_after(
        ticket.mask, marked.mask, secret_positions(credential), picture, title="The mask before and after embedding"
    )
    story = Story(
        folder=folder,
        seconds=time.monotonic() - started,
        ticket=ticket,
        marked=marked,
        rows=tuple(rows),
        pictures=(picture,),
    )
    write_whole(folder / "verdicts.json", json.dumps(story.to_json(), indent=2).encode())
    return story


def _new_owner(name: str, folder: Path) -> Owner:
    owner = Owner.generate(name)
    path = folder / "owner.key"
    _require_demo_folder(folder, path)
    owner.save(path, PASSPHRASE, replace=True)  # a demo's earlier keys are worth nothing
    return owner


def _require_demo_folder(folder: Path, key: Path) -> None:
    """Let nobody lose a key, vault or ticket to a demo: its own come with a key that opens with the demo's passphrase.

    Raises:
        FileError: *folder* holds files of these names that no demo wrote.
    """
    names = ("owner.key", "owner.key.pub", "ticket.safetensors", "marked.safetensors", "claim.json", "vault.age")
    taken = [name for name in names if (folder / name).exists()]
    if not taken:
        return
    try:
        ours = ENCRYPTED_LABEL in key.read_bytes() and Owner.load(key, PASSPHRASE) is not None
    except (OSError, TicketguardError):
        ours = False
    if not ours:
        raise FileError(
            path=folder,
            reason=f"holds {', '.join(taken)} that no earlier demo wrote",
            hint="choose another folder with --out",
        )


def _thefts(recipe: TrainingConfig) -> tuple[Removal, ...]:
    return (
        FineTuning(training=dataclasses.replace(recipe, **FINE_TUNING)),
        MagnitudePruning(share=PRUNED_SHARE),
        FineTuning(training=dataclasses.replace(recipe, **FINE_TUNING), keep_mask=False),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stand:
    """The witness stand: where suspects are made, saved and judged."""

    folder: Path
    data: Dataset
    ticket: Ticket
    seed: int

    @property
    def victim(self) -> Victim:
        return Victim(ticket=self.ticket, build=self.network, data=self.data)

    def network(self, seed: int | None = None) -> torch.nn.Module:
        return model_of(self.ticket, seed=self.seed if seed is None else seed)

    def judge(self, name: str, weights: Mapping[str, Array], credential: Credential, *, derives: bool) -> Row:
        """Save a suspect, and judge it by its weights and by its answers."""
        path = self.folder / "suspects" / _file_name(name)
        suspect = dataclasses.replace(self.ticket, weights=weights, rewind_weights=None)
        export_weights(suspect, path)
        network = self.network()
        load_arrays(network, weights)
        return Row(
            suspect=name,
            derives=derives,
            owner=credential.claim.owner_name,
            accuracy=evaluate(network, self.data),
            verdict=verify(
                Checkpoint(path), credential, answers=CallablePredictor(_answers(network), target="its answers")
            ),
        )


def _file_name(suspect: str) -> str:
    return f"{suspect.replace(' ', '-').replace(',', '')}.safetensors"


def _answers(network: torch.nn.Module) -> Callable[[FloatArray], torch.Tensor]:
    network.eval()

    def answer(inputs: FloatArray) -> torch.Tensor:
        with torch.no_grad():
            scores: torch.Tensor = network(torch.from_numpy(inputs))
            return scores

    return answer


def story_lines(story: Story) -> list[str]:
    """Return the story for a terminal."""
    info = story.ticket.info
    theft = story.folder / "suspects" / _file_name(story.rows[1].suspect)
    rows = [
        (
            row.suspect,
            row.owner,
            f"{row.accuracy:.1%}",
            STATUS_WORDS[row.verdict.status],
            log10_text(row.verdict.log10_p),
            *(log10_text(evidence.log10_p) for evidence in row.verdict.evidence),
        )
        for row in story.rows
    ]
    header = ("suspect", "claimed by", "accuracy", "the claim is", "p", "its weights' p", "its answers' p")
    return [
        f"found   {info.model} on {info.data}: {story.ticket.mask.density:.0%} of the weights kept, "
        f"accuracy {info.accuracy:.1%}",
        f"marked  with Ada's planted graph and trigger set: accuracy {story.marked.info.accuracy:.1%}",
        "",
        *table_lines(header, rows),
        "",
        f"{'Every judgement is right' if story.as_expected else 'A judgement is WRONG'}. Took {story.seconds:.0f} s.",
        f"Everything is in {story.folder}: pictures of the masks in masks.png, all evidence in verdicts.json. Try",
        f"  ticketguard inspect {story.folder}/marked.safetensors",
        f"  TICKETGUARD_PASSPHRASE={PASSPHRASE} ticketguard verify {theft} "
        f"--claim {story.folder}/claim.json --vault {story.folder}/vault.age",
    ]
