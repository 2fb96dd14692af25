"""The vault: the owner's private half, an age file opened by a passphrase or by a vault key.

Inside are a version line, a JSON header and the reference ticket's bytes
(``signatures/claim-and-vault.md`` writes it down for a second implementation).
"""

from __future__ import annotations

import dataclasses
import hashlib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyrage

from ticketguard.credentials import age_passphrase
from ticketguard.credentials.canonical import MAX_VALUES, Json, canonical_json, parse_canonical
from ticketguard.credentials.keys import encode_passphrase
from ticketguard.credentials.vault_key import VaultKey, parse_recipient
from ticketguard.errors import ConfigurationError, CredentialError, FileError, UnknownVersionError
from ticketguard.keyed import SECRET_BYTES
from ticketguard.ticket import LONGEST_NAME

PlainMember: TypeAlias = tuple[str | int, ...]
PlainGroup: TypeAlias = tuple[PlainMember, ...]

VAULT_VERSION = "ticketguard.vault/1"
VERSION_LIMIT_BYTES = 64
LENGTH_BYTES = 8
# Room for the kept rewind weights of the largest tickets anybody verifies on one machine.
VAULT_LIMIT_BYTES = 4 * 1024**3
# Far more than any model's channel groups take: those of a network of 1000 layers are 100 kB.
HEADER_LIMIT_BYTES = 4 * 1024**2
# Where age's own header ends at the latest: room for 40 recipients, and pyrage's time grows with its square.
AGE_HEADER_LIMIT_BYTES = 4096
AGE_HEADER_END = b"\n--- "
GROUPS_DOMAIN = b"ticketguard/channel-groups/v1\0"
# What pyrage says only when no stanza is for the key; a damaged body or header MAC reads differently.
NO_KEY_FAILURE = "No matching keys found"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vault:
    """What an owner keeps: the secret, the reference, and what it takes to compare a suspect with it.

    Attributes:
        secret: The 32 bytes that every draw comes from.
        reference: The unmarked reference ticket, as `Reference.to_bytes` writes it.
        channel_groups: Per group its members, the axes that are permuted together, each a tensor name followed by
            integers, as `ticketguard.graph.groups_to_json` writes them. None if the model could not be traced.
        notes: Whatever else the owner wants to find again, by name; nothing a verdict rests on.

    Raises:
        ValueError: A field is not what is said here.
        ConfigurationError: It is larger than `open_vault` would open.
    """

    secret: bytes = dataclasses.field(repr=False)
    reference: bytes = dataclasses.field(repr=False)
    channel_groups: Sequence[Sequence[Sequence[str | int]]] | None
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise ValueError(f"secret has {len(self.secret)} bytes, expected {SECRET_BYTES}")
        if any(not isinstance(text, str) for item in self.notes.items() for text in item):
            raise ValueError("notes are not all text")
        object.__setattr__(self, "channel_groups", plain_groups(self.channel_groups))
        # Here, so that a vault that could not be opened is refused before anything is trained for it.
        _check_size(self)


def plain_groups(groups: Sequence[Sequence[Sequence[str | int]]] | None) -> tuple[PlainGroup, ...] | None:
    """Check channel groups given as nested lists and return them as nested tuples.

    Raises:
        ValueError: A member is not a tensor name followed by two or more integers from 0.
    """
    return None if groups is None else tuple(tuple(_plain_member(member) for member in group) for group in groups)


def groups_digest(groups: Sequence[Sequence[Sequence[str | int]]] | None) -> str:
    """Return the digest, hex, that binds channel groups to a commitment as one of the mark's public parameters.

    Alignment permutes within the groups, so a claimant who could choose them after the secret edges are known
    could steer an innocent suspect's edges onto them.

    Raises:
        ValueError: The groups are malformed.
    """
    return hashlib.sha256(GROUPS_DOMAIN + canonical_json(_groups_to_json(plain_groups(groups)))).hexdigest()


def seal_vault(vault: Vault, *, passphrase: str | None = None, recipient: str | None = None) -> bytes:
    """Encrypt *vault* in the age format, under a passphrase (scrypt; a second and 256 MiB) or to a vault key.

    Args:
        vault: What is kept.
        passphrase: What will open it; not together with *recipient*.
        recipient: Public half of the vault key that will open it, ``age1…``.

    Raises:
        ConfigurationError: Not exactly one of the two is given, the passphrase is empty, or the recipient cannot be
            sealed to.
    """
    if (passphrase is None) == (recipient is None):
        raise ConfigurationError("a vault is sealed with a passphrase or to a vault key: give exactly one of them")
    if recipient is not None:
        key = parse_recipient(recipient)
        sealed: bytes = pyrage.encrypt(_to_plaintext(vault), [key])
        return sealed
    if not passphrase:
        raise ConfigurationError("the vault's passphrase is empty: choose one")
    return age_passphrase.seal(_to_plaintext(vault), encode_passphrase(passphrase))


def open_vault(
    content: bytes, *, passphrase: str | None = None, vault_key: VaultKey | None = None, name: object = "vault"
) -> Vault:
    """Decrypt and check a vault.

    Args:
        content: The file's bytes.
        passphrase: What it was sealed with (scrypt; a second and 256 MiB, more for vaults of older releases).
        vault_key: The key it was sealed to.
        name: What error messages call it, such as its path.

    Raises:
        ConfigurationError: Not exactly one of passphrase and key is given.
        WrongPassphraseError: The passphrase does not open it. Damage to the few bytes that wrap the file's key
            looks the same.
        CredentialError: The key does not open it, or its content is malformed.
        FileError: It is not an age file of this kind, asks for more work or memory than is allowed, or is damaged.
        UnknownVersionError: Its content has an unknown version.
    """
    if (passphrase is None) == (vault_key is None):
        raise ConfigurationError(f"vault '{name}' is opened with a passphrase or a vault key: give exactly one of them")
    if not content.startswith(age_passphrase.MAGIC):
        raise FileError(path=name, reason="is not an age file", hint="expected a vault that 'ticketguard embed' wrote")
    by_passphrase = age_passphrase.is_sealed_by_passphrase(content)
    if by_passphrase and passphrase is None:
        raise CredentialError(f"vault '{name}' is sealed with a passphrase, not to a vault key: give its passphrase")
    if not by_passphrase and vault_key is None:
        raise CredentialError(f"vault '{name}' is sealed to a vault key, not with a passphrase: give its key")
    if vault_key is None:
        plaintext = age_passphrase.unseal(content, encode_passphrase(passphrase or ""), name=name)
    else:
        plaintext = _unseal_with_key(content, vault_key, name=name)
    return _from_plaintext(plaintext, name=name)


def _unseal_with_key(content: bytes, vault_key: VaultKey, *, name: object) -> bytes:
    if content.find(AGE_HEADER_END, 0, AGE_HEADER_LIMIT_BYTES) < 0:
        raise FileError(
            path=name,
            reason=f"has a damaged header, or one of more than {AGE_HEADER_LIMIT_BYTES} bytes",
            hint="use the vault as it was written",
        )
    try:
        plaintext: bytes = pyrage.decrypt(content, [vault_key.identity])
    except pyrage.DecryptError as error:
        if str(error) == NO_KEY_FAILURE:
            raise CredentialError(
                f"the vault key {vault_key.recipient} does not open '{name}': use the key it was sealed to"
            ) from error
        raise FileError(
            path=name, reason=f"cannot be decrypted ({str(error).splitlines()[0]})", hint=age_passphrase.DAMAGED
        ) from error
    return plaintext


def _check_size(vault: Vault) -> None:
    groups = vault.channel_groups or ()
    members = sum(len(group) for group in groups)
    values = len(groups) + sum(1 + len(member) for group in groups for member in group) + len(vault.notes)
    if values > MAX_VALUES - 4 or len(header := _header(vault)) > HEADER_LIMIT_BYTES:
        raise ConfigurationError(
            f"the vault's {members} members of channel groups and {len(vault.notes)} notes are more than can be read "
            "again: leave out the model's groups or some notes"
        )
    size = len(header) + len(vault.reference)
    sealed = size + size // age_passphrase.CHUNK_BYTES * age_passphrase.TAG_BYTES + AGE_HEADER_LIMIT_BYTES
    if sealed > VAULT_LIMIT_BYTES:
        raise ConfigurationError(
            f"the vault would have {sealed} bytes, expected at most {VAULT_LIMIT_BYTES}, which is what can be opened "
            "again: lower the density, or mark fewer layers"
        )


def _header(vault: Vault) -> bytes:
    return canonical_json(
        {
            "channelGroups": _groups_to_json(plain_groups(vault.channel_groups)),
            "notes": dict(vault.notes),
            "secret": vault.secret.hex(),
        }
    )


def _to_plaintext(vault: Vault) -> bytes:
    header = _header(vault)
    return b"".join(
        (VAULT_VERSION.encode(), b"\n", len(header).to_bytes(LENGTH_BYTES, "little"), header, vault.reference)
    )


def _from_plaintext(plaintext: bytes, *, name: object) -> Vault:
    version, newline, _ = plaintext[:VERSION_LIMIT_BYTES].partition(b"\n")
    if version != VAULT_VERSION.encode() or not newline:
        found = version.decode("utf-8", errors="replace")
        raise UnknownVersionError(what=f"vault '{name}'", found=found, known=(VAULT_VERSION,))
    start = len(version) + 1 + LENGTH_BYTES
    size = int.from_bytes(plaintext[start - LENGTH_BYTES : start], "little")
    end = start + size
    if len(plaintext) < end:
        raise CredentialError(f"vault '{name}' ends inside its header: it was not written completely")
    if size > HEADER_LIMIT_BYTES:
        raise CredentialError(
            f"vault '{name}' has a header of {size} bytes, expected at most {HEADER_LIMIT_BYTES}: "
            "it was not written by ticketguard"
        )
    try:
        document = parse_canonical(plaintext[start:end])
        if not isinstance(document, dict) or set(document) != {"channelGroups", "notes", "secret"}:
            raise ValueError("has other fields than channelGroups, notes and secret")
        return Vault(
            secret=bytes.fromhex(_expect(document["secret"], str)),
            reference=plaintext[end:],
            channel_groups=_groups_from_json(document["channelGroups"]),
            notes=_expect(document["notes"], dict),
        )
    except ValueError as error:
        raise CredentialError(f"vault '{name}' has a header that {error}: it was not written by ticketguard") from error


def _groups_to_json(groups: tuple[PlainGroup, ...] | None) -> Json:
    # Canonical JSON here has no null: untraced groups are the text "unknown", which no list can equal.
    return "unknown" if groups is None else [[list(member) for member in group] for group in groups]


def _groups_from_json(document: Json) -> tuple[PlainGroup, ...] | None:
    if document == "unknown":
        return None
    return plain_groups(
        [[_expect(member, list) for member in _expect(group, list)] for group in _expect(document, list)]
    )


def _plain_member(member: Sequence[str | int]) -> PlainMember:
    tensor, *numbers = member if member else ("",)
    if isinstance(tensor, str) and tensor and len(numbers) >= 2 and all(_is_count(number) for number in numbers):
        if len(tensor) > LONGEST_NAME:
            raise ValueError(f"channel group names {reprlib.repr(tensor)}, expected at most {LONGEST_NAME} characters")
        return tuple(member)
    raise ValueError(
        f"channel group member is {reprlib.repr(list(member))}, expected a tensor name and integers from 0"
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"has a {type(value).__name__} where a {kind.__name__} belongs")
    return value
