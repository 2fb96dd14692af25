"""Claims, vaults and keys, and what they ask a verifier to draw."""

from __future__ import annotations

import base64
import json

import pyrage
import torch

import ticketguard as tg
from benchmarks.fuzzing.checkpoints import ticket
from benchmarks.fuzzing.target import Scratch, Target, within
from ticketguard.credentials import envelope
from ticketguard.credentials.claim import read_claim, sign_claim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner, load_public_key
from ticketguard.credentials.vault import open_vault, seal_vault
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.trigger_set import TriggerRecipe, draw_triggers
from ticketguard.errors import CredentialError
from ticketguard.graph import check_fit, groups_from_json
from ticketguard.marking.plan import prepare

# The lowest work factor: what a damaged header asks for is refused, or tried at once.
PASSPHRASE_VAULT = (
    b"age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 1\n"
    b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
) + bytes(48)


def targets(scratch: Scratch) -> tuple[Target, ...]:
    """Return the targets that read credentials."""
    owner = Owner.generate("Ada")
    credential = _credential(owner)
    claim = sign_claim(credential.claim, owner)
    payload = base64.b64decode(json.loads(claim)["payload"])
    key = VaultKey.generate()
    sealed = seal_vault(credential.vault, recipient=key.recipient)
    files = _key_files(scratch, owner, key)
    recipe = json.dumps(dict(credential.mark("trigger-set").parameters)).encode()
    groups = json.dumps([[["a.weight", 0, 100, 0, 1]]]).encode()
    return (
        Target(name="claim", seeds=(claim, b"\xef\xbb\xbf" + claim + b"\r\n"), read=read_claim),
        Target(
            name="statement in a signed envelope",
            seeds=(payload,),
            read=within(lambda content: envelope.seal(content, owner.private_key), read_claim),
            is_json=True,
        ),
        Target(name="vault sealed to a key", seeds=(sealed,), read=lambda content: open_vault(content, vault_key=key)),
        Target(
            name="vault's plaintext",
            seeds=(pyrage.decrypt(sealed, [key.identity]),),
            read=within(
                lambda content: pyrage.encrypt(content, [key.identity.to_public()]),
                lambda content: open_vault(content, vault_key=key),
            ),
        ),
        Target(
            name="vault under a passphrase",
            seeds=(PASSPHRASE_VAULT,),
            read=lambda content: open_vault(content, passphrase="x"),
        ),
        Target(
            name="owner key", seeds=files[:2], read=scratch.reader("fuzzed.key", lambda path: Owner.load(path, "x"))
        ),
        Target(name="public key", seeds=files[2:3], read=scratch.reader("fuzzed.pub", load_public_key)),
        Target(name="vault key", seeds=files[3:], read=scratch.reader("fuzzed.age-key", VaultKey.load)),
        Target(name="recipe of a trigger set", seeds=(recipe,), read=_draw, is_json=True),
        Target(name="channel groups", seeds=(groups,), read=_groups, is_json=True),
    )


def _credential(owner: Owner) -> Credential:
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(100, 100, bias=False), "b": torch.nn.Module()})
    network["b"].bias = torch.nn.Parameter(torch.ones(4))
    plan = prepare(ticket(), owner=owner, marks=[tg.PlantedGraph(share=0.3), tg.TriggerSet(100)])
    plan.start(network)
    plan.after_step(network)
    return plan.finish(network, check=False)[1]


def _key_files(scratch: Scratch, owner: Owner, key: VaultKey) -> tuple[bytes, bytes, bytes, bytes]:
    """Return an owner's key as it is and under a passphrase, its public half, and a vault key."""
    names = ("plain.key", "sealed.key", "plain.key.pub", "vault.age-key")
    plain, sealed, _, vault_key = (scratch.folder / name for name in names)
    owner.save(plain, None)
    owner.save(sealed, "x")
    key.save(vault_key)
    found = tuple((scratch.folder / name).read_bytes() for name in names)
    return found[0], found[1], found[2], found[3]


def _document(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CredentialError("what a claim's reader would have refused") from error


def _draw(content: bytes) -> object:
    """Read a recipe and draw its triggers."""
    parameters = _document(content)
    if not isinstance(parameters, dict):
        raise CredentialError("what a claim's reader would have refused")
    return draw_triggers(Binding(secret=bytes(32), commitment=bytes(32)), TriggerRecipe.from_json(parameters))


def _groups(content: bytes) -> object:
    """Read channel groups as a verifier does."""
    try:
        groups = groups_from_json(_document(content))
        check_fit(groups, {"a.weight": (100, 100)})
    except ValueError as error:
        raise CredentialError("malformed groups") from error
    return groups
