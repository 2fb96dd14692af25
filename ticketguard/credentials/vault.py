"""The vault: the owner's private half, an age file opened by a passphrase or by a vault key.

Inside are a version line, a JSON header and the reference ticket's bytes
(``signatures/claim-and-vault.md`` writes it down for a second implementation).
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence

import pyrage

from ticketguard.credentials import age_passphrase
from ticketguard.credentials.canonical import MAX_VALUES
from ticketguard.credentials.channel_groups import plain_groups
from ticketguard.credentials.keys import encode_passphrase
from ticketguard.credentials.streams import Joined, Readable
from ticketguard.credentials.vault_content import (
    HEADER_LIMIT_BYTES,
    ContentReader,
    Header,
    before_reference,
    malformed,
)
from ticketguard.credentials.vault_key import VaultKey, parse_recipient
from ticketguard.errors import ConfigurationError, CredentialError, FileError
from ticketguard.files import open_to_read
from ticketguard.keyed import SECRET_BYTES
from ticketguard.tensor_file import TICKET_LIMIT_BYTES

# A reference is never larger than its ticket: whatever ticket can be read has a vault that can.
VAULT_LIMIT_BYTES = TICKET_LIMIT_BYTES
# Where age's own header ends at the latest: room for 40 recipients, and pyrage's time grows with its square.
AGE_HEADER_LIMIT_BYTES = 4096
AGE_HEADER_END = b"\n--- "
# What pyrage says only when no stanza is for the key; a damaged body or header MAC reads differently.
NO_KEY_FAILURE = "No matching keys found"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vault:
    """What an owner keeps: the secret, the reference, and what it takes to compare a suspect with it.

    Attributes:
        secret: The 32 bytes that every draw comes from.
        reference: The unmarked reference ticket, as `Reference.to_bytes` writes it, or start weights, as
            `StartReference.to_bytes` does.
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
    plaintext = Joined(before_reference(_header(vault)), vault.reference)
    if recipient is not None:
        sealed = io.BytesIO()
        pyrage.encrypt_io(plaintext, sealed, [parse_recipient(recipient)])
        return sealed.getvalue()
    if not passphrase:
        raise ConfigurationError("the vault's passphrase is empty: choose one")
    return age_passphrase.seal(plaintext, encode_passphrase(passphrase))


def read_vault(
    path: str | os.PathLike[str], *, passphrase: str | None = None, vault_key: VaultKey | None = None
) -> Vault:
    """Decrypt and check a vault file. What is not a vault is refused at its beginning, however large it is.

    Args:
        path: The file.
        passphrase: As `open_vault`.
        vault_key: As `open_vault`.

    Raises:
        FileError: The file cannot be read, or is larger than any vault.
        TicketguardError: As `open_vault`.
    """
    with open_to_read(path, limit_bytes=VAULT_LIMIT_BYTES) as content:
        return open_vault(content, passphrase=passphrase, vault_key=vault_key, name=path)


def open_vault(
    content: bytes | Readable,
    *,
    passphrase: str | None = None,
    vault_key: VaultKey | None = None,
    name: object = "vault",
) -> Vault:
    """Decrypt and check a vault, a piece at a time.

    Args:
        content: The file's bytes, or what they are read from.
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
    source = Joined(content)
    start = source.read(AGE_HEADER_LIMIT_BYTES)
    if not start.startswith(age_passphrase.MAGIC):
        raise FileError(path=name, reason="is not an age file", hint="expected a vault that 'ticketguard embed' wrote")
    by_passphrase = age_passphrase.is_sealed_by_passphrase(start)
    if by_passphrase and passphrase is None:
        raise CredentialError(f"vault '{name}' is sealed with a passphrase, not to a vault key: give its passphrase")
    if not by_passphrase and vault_key is None:
        raise CredentialError(f"vault '{name}' is sealed to a vault key, not with a passphrase: give its key")
    plaintext = ContentReader(name)
    if vault_key is None:
        age_passphrase.unseal(Joined(start, source), encode_passphrase(passphrase or ""), plaintext.write, name=name)
    else:
        _unseal_with_key(start, source, vault_key, plaintext, name=name)
    header, reference = plaintext.finish()
    try:
        return Vault(
            secret=header.secret,
            reference=reference,
            channel_groups=header.channel_groups,
            notes=header.notes,
        )
    except ValueError as error:
        raise malformed(name, error) from error


def _unseal_with_key(
    start: bytes, rest: Readable, vault_key: VaultKey, plaintext: ContentReader, *, name: object
) -> None:
    if start.find(AGE_HEADER_END) < 0:
        raise FileError(
            path=name,
            reason=f"has a damaged header, or one of more than {AGE_HEADER_LIMIT_BYTES} bytes",
            hint="use the vault as it was written",
        )
    try:
        pyrage.decrypt_io(Joined(start, rest), plaintext, [vault_key.identity])
    except (pyrage.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file could not be read
        if str(error) == NO_KEY_FAILURE:
            raise CredentialError(
                f"the vault key {vault_key.recipient} does not open '{name}': use the key it was sealed to"
            ) from error
        raise FileError(
            path=name, reason=f"cannot be decrypted ({str(error).splitlines()[0]})", hint=age_passphrase.DAMAGED
        ) from error


def _header(vault: Vault) -> Header:
    return Header(secret=vault.secret, channel_groups=plain_groups(vault.channel_groups), notes=vault.notes)


def _check_size(vault: Vault) -> None:
    groups = vault.channel_groups or ()
    members = sum(len(group) for group in groups)
    values = len(groups) + sum(1 + len(member) for group in groups for member in group) + len(vault.notes)
    if values > MAX_VALUES - 4 or len(header := _header(vault).to_bytes()) > HEADER_LIMIT_BYTES:
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
