"""Judge a suspect by a credential."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import GROUPS_PARAMETER, Credential
from ticketguard.credentials.merkle import merkle_root
from ticketguard.embedding import planted_graph, trigger_set
from ticketguard.embedding.interface import Binding
from ticketguard.errors import CredentialError, UnknownVersionError, UnverifiableError
from ticketguard.graph import ChannelGroup, align, check_fit, groups_from_json
from ticketguard.plan import DEFAULT_LEVEL_BITS
from ticketguard.suspects.checkpoints import Checkpoint
from ticketguard.suspects.predictors import Predictor
from ticketguard.ticket import Mask, Reference
from ticketguard.verification import black_box, white_box
from ticketguard.verification.verdict import Evidence, Verdict, level_log10

# The schemes this release verifies, with the version of each.
KNOWN_VERSIONS = {planted_graph.SCHEME: planted_graph.VERSION, trigger_set.SCHEME: trigger_set.VERSION}


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
