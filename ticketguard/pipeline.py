"""The verbs find, embed, verify: where the parts meet.

``find → Ticket → embed → (marked Ticket, Credential) → … → Suspect + Credential → Evidence → Verdict``
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import GROUPS_PARAMETER, Credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.merkle import merkle_root
from ticketguard.embedding import planted_graph, trigger_set
from ticketguard.embedding.interface import Binding, Mark
from ticketguard.errors import ConfigurationError, CredentialError, UnknownVersionError, UnverifiableError
from ticketguard.files import read_whole, write_whole
from ticketguard.graph import ChannelGroup, align, check_fit, groups_from_json
from ticketguard.keyed import SECRET_BYTES
from ticketguard.plan import DEFAULT_LEVEL_BITS, Plan, default_marks, prepare
from ticketguard.suspects.checkpoints import Checkpoint
from ticketguard.suspects.predictors import Predictor
from ticketguard.ticket import Array, Mask, Reference, Ticket
from ticketguard.verification import black_box, white_box
from ticketguard.verification.verdict import Evidence, Verdict, level_log10

if TYPE_CHECKING:
    import torch

    from ticketguard.data import Dataset
    from ticketguard.pruning import PruningMethod, SearchProblem
    from ticketguard.training import Progress, TrainingConfig

# Weights, in any form they come in.
State: TypeAlias = "Mapping[str, Array] | Ticket | Checkpoint | str | os.PathLike[str]"

# What an embedding keeps in its folder, beside the checkpoint, while it runs.
SECRET_FILE, IDENTITY_FILE = "embed.secret", "embed.identity"
# The schemes this release verifies, with the version of each.
KNOWN_VERSIONS = {planted_graph.SCHEME: planted_graph.VERSION, trigger_set.SCHEME: trigger_set.VERSION}


def find(
    model: str | Callable[..., torch.nn.Module],
    *,
    data: str | Dataset | Callable[..., Dataset],
    density: float | None = None,
    method: str = "imp",
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    method_options: Mapping[str, Any] | None = None,
    pretrained: State | None = None,
    rewind: State | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Ticket:
    """Find a winning ticket.

    Args:
        model: A model's name, an import path ``package.module:factory``, or the factory itself.
        data: A data set's name, a folder or tar of class folders, an import path, or the data set itself.
        density: Kept fraction of the prunable weights, in (0, 1); None for a method whose options say what is removed.
        method: The pruning method's name.
        training: How each level is trained: a recipe, or changes to the recommended one for this model and data.
        seed: Fixes initialisation, order and augmentation.
        model_options: Arguments of the model's factory; classes and input shape are taken from the data.
        data_options: Arguments of the data loader.
        method_options: Arguments of the method.
        pretrained: The trained dense network, for methods that start from one: a state dict, a ticket, or a file.
        rewind: The weights that the ticket is trained from, likewise; by default what the method takes.
        workdir: Folder for checkpoints; without it the run cannot be resumed.
        resume: Go on from the checkpoints in *workdir*.
        progress: Where progress is shown.

    Raises:
        ConfigurationError: An unknown name, or a density that empties a layer.
        FileError: The data cannot be read.
        TicketguardError: Training diverged.
    """
    chosen, problem = _search(
        model,
        data=data,
        density=density,
        method=method,
        training=training,
        seed=seed,
        model_options=model_options,
        data_options=data_options,
        method_options=method_options,
        pretrained=pretrained,
        rewind=rewind,
        workdir=workdir,
        resume=resume,
        progress=progress,
    )
    return chosen.find(problem)


def find_marked(
    model: str | Callable[..., torch.nn.Module],
    *,
    owner: Owner,
    density: float,
    marks: Sequence[Mark] | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    **search: Any,
) -> tuple[Ticket, Credential]:
    """Find a winning ticket that carries the owner's marks from the start: the search sees the secret edges.

    The commitment binds the rewind weights, which are all there is before the search. Compared with `embed` afterwards,
    the ticket is trained once, and the edges of the mark are the best of the secret ones.

    Args:
        model: As for `find`.
        owner: Whose marks they are.
        density: Kept fraction of the prunable weights, in (0, 1).
        marks: Kinds of marks, a planted graph among them; by default that, and a trigger set where possible.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        workdir: Folder for checkpoints; without it the run cannot be resumed.
        resume: Go on from the checkpoints in *workdir*, with the secret that is kept there.
        search: The other arguments of `find`.

    Returns:
        The marked ticket, made for release, and the owner's credential.

    Raises:
        CapacityError: The ticket is too small for the mark.
        ConfigurationError: As `find`; or the method chooses no weights.
    """
    from ticketguard.graph import channel_groups_or_none
    from ticketguard.models import load_arrays, model_of
    from ticketguard.planting import SearchPlanting
    from ticketguard.training import drawn_once

    chosen, problem = _search(model, density=density, workdir=workdir, resume=resume, **search)
    if not chosen.chooses_weights:
        raise ConfigurationError(
            f"method '{chosen.name}' chooses no single weights, so no mark can be planted meanwhile: "
            "find the ticket first and embed the mark afterwards"
        )
    key = drawn_once(
        lambda: _secret_of_run(secret, workdir, resume=resume), length=SECRET_BYTES, config=problem.training
    )
    planting = SearchPlanting(
        owner=owner,
        info=problem.info(chosen.name),
        density=density,
        marks=marks,
        groups=channel_groups_or_none(problem.build(), problem.data.input_shape),
        level_bits=level_bits,
        secret=key,
    )
    if workdir is not None:
        write_whole(workdir / SECRET_FILE, key, mode=0o600)
    ticket = chosen.find(dataclasses.replace(problem, planting=planting))
    network = model_of(ticket)
    load_arrays(network, ticket.weights)
    found = planting.finish(ticket, network)
    if workdir is not None:
        (workdir / SECRET_FILE).unlink(missing_ok=True)
    return found


def _search(
    model: str | Callable[..., torch.nn.Module],
    *,
    data: str | Dataset | Callable[..., Dataset],
    density: float | None,
    method: str = "imp",
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    method_options: Mapping[str, Any] | None = None,
    pretrained: State | None = None,
    rewind: State | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[PruningMethod, SearchProblem]:
    from ticketguard.data import load_data
    from ticketguard.pruning import METHODS, SearchProblem
    from ticketguard.training import NoProgress, join_processes, recommended_training

    if method not in METHODS:
        raise ConfigurationError(f"unknown method '{method}', expected one of {', '.join(sorted(METHODS))}")
    dataset = load_data(data, options=data_options or {})
    problem = SearchProblem(
        model=model,
        model_options={"classes": dataset.classes, "input_shape": list(dataset.input_shape), **(model_options or {})},
        data=dataset,
        data_name=data if isinstance(data, str) else dataset.name,
        data_options=data_options or {},
        density=density,
        training=_recipe(training, recommended_training(model, dataset)),
        seed=seed,
        method_options=method_options or {},
        pretrained=_state_of(pretrained),
        rewind=_state_of(rewind),
        workdir=workdir,
        resume=resume,
        progress=progress or NoProgress(),
    )
    join_processes(problem.training)
    return METHODS[method], problem


def _state_of(
    source: State | None,
) -> Mapping[str, Array] | None:
    if source is None or isinstance(source, Mapping):
        return source
    if isinstance(source, Ticket):
        return source.weights
    return (source if isinstance(source, Checkpoint) else Checkpoint(source)).state()


def _recipe(given: TrainingConfig | Mapping[str, Any] | None, default: TrainingConfig) -> TrainingConfig:
    if given is None or isinstance(given, Mapping):
        return dataclasses.replace(default, **(given or {}))
    return given


def embed(
    ticket: Ticket,
    *,
    owner: Owner,
    marks: Sequence[Mark] | None = None,
    model: str | Callable[..., torch.nn.Module] | None = None,
    data: str | Dataset | Callable[..., Dataset] | None = None,
    data_options: Mapping[str, Any] | None = None,
    training: TrainingConfig | Mapping[str, Any] | None = None,
    seed: int = 0,
    level_bits: int = DEFAULT_LEVEL_BITS,
    secret: bytes | None = None,
    workdir: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[Ticket, Credential]:
    """Write the owner's marks into *ticket* and retrain it from its rewind weights.

    Args:
        ticket: The unmarked ticket.
        owner: Whose marks they are.
        marks: Kinds of marks; by default a planted graph and a trigger set.
        model: By default what the ticket was found with.
        data: By default what the ticket was found with.
        data_options: Arguments of the data loader; without *data*, changes to those the ticket was found with.
        training: A recipe, or changes to the ticket's own.
        seed: Fixes order and augmentation.
        level_bits: A verdict will need p ≤ 2^-level_bits.
        secret: 32 secret bytes; by default fresh from the operating system.
        workdir: Folder for checkpoints; without it the run cannot be resumed.
        resume: Go on from the checkpoint in *workdir*, with the secret that is kept there.
        progress: Where progress is shown.

    Returns:
        The marked ticket, made for release, and the owner's credential.

    Raises:
        CapacityError: The ticket is too small for the mark.
        ConfigurationError: The ticket does not say its model or data, and neither does the call.
        TicketguardError: Training diverged.
    """
    from ticketguard.data import load_data
    from ticketguard.models import load_arrays, model_of
    from ticketguard.training import TrainingConfig, drawn_once, recommended_training, train

    info = ticket.info
    if not (model or info.model) or not (data or info.data):
        raise ConfigurationError("the ticket does not say its model and data: name both")
    found_with = info.data_options if data is None else {}
    dataset = load_data(data or info.data, options={**found_with, **(data_options or {})})
    network = model_of(ticket, seed=seed, model=model)
    own = (
        TrainingConfig.from_json(info.training) if info.training else recommended_training(model or info.model, dataset)
    )
    config = _recipe(training, own)
    # Several processes train one model, so they must draw one mark.
    key = drawn_once(lambda: _secret_of_run(secret, workdir, resume=resume), length=SECRET_BYTES, config=config)
    chosen = default_marks(ticket.info) if marks is None else marks
    plan = prepare(ticket, owner=owner, marks=chosen, model=network, level_bits=level_bits, secret=key)
    if workdir is not None:
        write_whole(workdir / SECRET_FILE, key, mode=0o600)
        _keep_identity(workdir / IDENTITY_FILE, plan, chosen, resume=resume)
    result = train(
        network,
        dataset,
        config,
        seed=seed,
        mask=plan.mask,
        hooks=plan,
        checkpoint=None if workdir is None else workdir / "embed.checkpoint",
        resume=resume,
        progress=progress,
    )
    load_arrays(network, result.state)
    if workdir is not None:
        for name in (SECRET_FILE, IDENTITY_FILE):
            (workdir / name).unlink(missing_ok=True)
    return plan.finish(network, accuracy=result.accuracy)


def _secret_of_run(secret: bytes | None, workdir: Path | None, *, resume: bool) -> bytes:
    """Return the secret that an interrupted embedding began with, so that it goes on with the same draws, or a new one.

    Raises:
        ConfigurationError: The run to go on with has another secret than the one given.
    """
    kept = None if workdir is None else workdir / SECRET_FILE
    if kept is not None and resume and kept.exists():
        key = read_whole(kept, limit_bytes=SECRET_BYTES)
        if secret not in (None, key):
            raise ConfigurationError(
                f"the run kept in '{workdir}' has another secret than the one given: resume without one, or start anew"
            )
        return key
    return os.urandom(SECRET_BYTES) if secret is None else secret


def _keep_identity(path: Path, plan: Plan, marks: Sequence[Mark], *, resume: bool) -> None:
    """Keep what is embedded, and how, beside the checkpoint: weights under other marks look like those of this run.

    Raises:
        ConfigurationError: The run to go on with embeds other marks.
    """
    commitments = " ".join(mark.commitment.hex() for mark in plan.claims)
    identity = f"{commitments} {' '.join(map(repr, marks))}".encode()
    if resume and path.exists() and path.read_bytes() != identity:
        raise ConfigurationError(
            f"the run kept in '{path.parent}' embeds other marks, or another owner's: "
            "resume with the settings it was started with, or start anew"
        )
    write_whole(path, identity)


def verify(
    suspect: Checkpoint | Predictor,
    credential: Credential,
    *,
    owner_public_key: bytes | None = None,
    level_bits: int = DEFAULT_LEVEL_BITS,
) -> Verdict:
    """Say whether *suspect* derives from the ticket that *credential* claims.

    Args:
        suspect: A checkpoint (white-box: tensors only, no model code is run) or a predictor (black-box: answers only).
        credential: The owner's claim and vault.
        owner_public_key: The Ed25519 key the claim must be signed by, 32 bytes; by default the claim's own.
        level_bits: The weakest level the verifier accepts: a claim may ask for more than 2^-level_bits, not for less.

    Raises:
        CredentialError: Claim and vault do not belong together, or the claim is another owner's.
        UnverifiableError: The claim has no mark for this kind of suspect, or they share no tensors.
        TicketguardError: The suspect cannot be read or does not answer.
    """
    credential.check()
    claim = credential.claim
    if owner_public_key is not None and owner_public_key != claim.owner_public_key:
        raise CredentialError(
            f"the claim is signed by key {claim.owner_public_key.hex()}, expected {owner_public_key.hex()}: "
            "it is not this owner's claim"
        )
    marks = {mark.scheme: mark for mark in claim.marks}
    scheme = planted_graph.SCHEME if isinstance(suspect, Checkpoint) else trigger_set.SCHEME
    if scheme not in marks:
        raise UnverifiableError(
            f"the claim has no {scheme}, which this kind of suspect needs; it has {', '.join(sorted(marks))}"
        )
    mark = marks[scheme]
    if mark.version != KNOWN_VERSIONS[scheme]:
        raise UnknownVersionError(
            what=f"the claim's {scheme}", found=mark.version, known=(str(KNOWN_VERSIONS[scheme]),)
        )
    strictest = max(level_bits, mark.level_bits)
    if isinstance(suspect, Checkpoint):
        evidence = _examine_weights(suspect, credential, mark, level_bits=strictest)
    else:
        evidence = _interrogate(suspect, credential, mark, level_bits=strictest)
    return Verdict(
        status=evidence.status,
        suspect=suspect.label if isinstance(suspect, Checkpoint) else suspect.target,
        owner_name=claim.owner_name,
        owner_public_key=claim.owner_public_key.hex(),
        evidence=(evidence,),
    )


def _examine_weights(suspect: Checkpoint, credential: Credential, mark: MarkClaim, *, level_bits: int) -> Evidence:
    reference = Reference.from_bytes(credential.vault.reference)
    found = suspect.match({name: reference.mask[name].shape for name in reference.mask})
    names = found.pairs
    layers = white_box.Layers(read=suspect.read, names=names)
    present = Mask(layers={name: reference.mask[name] for name in reference.mask if name in names})
    binding = Binding(secret=credential.vault.secret, commitment=mark.commitment)
    parameters = planted_graph.PlantedParameters.from_json(mark.parameters)
    groups = _bound_groups(credential, mark, reference.mask)
    looks = len(white_box.READINGS) * (2 if groups else 1)
    passages = [white_box.examine(layers, present, binding, parameters)]
    if groups and passages[0].log10_p + math.log10(looks) > level_log10(level_bits):
        aligned = white_box.Layers(read=suspect.read, names=names, alignment=align(layers, reference, groups))
        passages.append(white_box.examine(aligned, present, binding, parameters))
    missing = [name for name in reference.mask if name not in names]
    return white_box.to_evidence(
        passages, level_bits=level_bits, looks=looks, missing=missing, paired_by_order=found.by_order
    )


def _bound_groups(credential: Credential, mark: MarkClaim, mask: Mask) -> Sequence[ChannelGroup]:
    """Return the vault's channel groups of *mask*'s layers if the commitment binds them.

    Groups that it does not bind could be made to steer an alignment.
    """
    if GROUPS_PARAMETER not in mark.parameters:
        return ()
    try:
        groups = groups_from_json(credential.vault.channel_groups)
        check_fit(groups, {name: mask[name].shape for name in mask})
        return [group for group in groups if any(member.tensor in mask.layers for member in group)]
    except ValueError as error:
        raise CredentialError(f"the vault's channel groups are malformed ({error}): use another copy of it") from error


def _interrogate(suspect: Predictor, credential: Credential, mark: MarkClaim, *, level_bits: int) -> Evidence:
    recipe = trigger_set.TriggerRecipe.from_json(mark.parameters)
    binding = Binding(secret=credential.vault.secret, commitment=mark.commitment)
    triggers = trigger_set.draw_triggers(binding, recipe)
    if merkle_root(triggers.leaves()) != mark.merkle_root:
        raise CredentialError(
            "the vault's triggers do not have the claim's Merkle root: the claim was not made from it"
        )
    return black_box.interrogate(suspect, triggers, level_bits=level_bits)
