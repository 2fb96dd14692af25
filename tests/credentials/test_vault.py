"""Vaults; nearly all of them sealed by a second implementation of age with next to no scrypt work."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from ticketguard.credentials import age_passphrase
from ticketguard.credentials import vault as vaults
from ticketguard.credentials.canonical import MAX_VALUES, canonical_json
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.vault import VAULT_LIMIT_BYTES, Vault, open_vault, read_vault, seal_vault
from ticketguard.credentials.vault_content import HEADER_LIMIT_BYTES, VAULT_VERSION
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.errors import (
    ConfigurationError,
    CredentialError,
    FileError,
    TicketguardError,
    UnknownVersionError,
    WrongPassphraseError,
)
from ticketguard.tensor_file import TICKET_LIMIT_BYTES

Sealer = Callable[..., bytes]
KEY = VaultKey.generate()
PASSPHRASE = "correct horse battery staple"
HEADER = {"channelGroups": "unknown", "notes": {}, "secret": "00" * 32}


def plaintext_of(header: object, *, reference: bytes = b"reference") -> bytes:
    encoded = canonical_json(header)
    return VAULT_VERSION.encode() + b"\n" + len(encoded).to_bytes(8, "little") + encoded + reference


def test_vault_of_a_second_implementation_is_read(seal_cheaply: Sealer) -> None:
    groups = [[["a.weight", 0, 1], ["b.weight", 1, 9]], []]
    header = {"channelGroups": groups, "notes": {"ü": "x"}, "secret": bytes(range(32)).hex()}
    vault = open_vault(seal_cheaply(plaintext_of(header), PASSPHRASE), passphrase=PASSPHRASE)
    assert vault == Vault(secret=bytes(range(32)), reference=b"reference", channel_groups=groups, notes={"ü": "x"})
    assert vault.channel_groups == ((("a.weight", 0, 1), ("b.weight", 1, 9)), ())


@pytest.mark.parametrize("size", [0, 1, 65536, 200_000])
def test_references_of_any_size_come_back_whole(seal_cheaply: Sealer, size: int) -> None:
    reference = bytes(range(256)) * (size // 256 + 1)
    content = seal_cheaply(plaintext_of(HEADER, reference=reference[:size]), PASSPHRASE)
    assert open_vault(content, passphrase=PASSPHRASE).reference == reference[:size]


def test_a_vault_holds_as_many_members_and_notes_as_can_be_read(seal_cheaply: Sealer) -> None:
    groups = [[["a", 0, 1]] * 62_498]
    # One value a group, four a member, and four for the header, its groups, notes and secret.
    notes = {str(number): "" for number in range(MAX_VALUES - 4 - 1 - 4 * 62_498)}
    vault = Vault(secret=bytes(32), reference=b"", channel_groups=groups, notes=notes)
    header = {"channelGroups": groups, "notes": notes, "secret": vault.secret.hex()}
    content = seal_cheaply(plaintext_of(header, reference=b""), PASSPHRASE)
    assert open_vault(content, passphrase=PASSPHRASE) == vault
    with pytest.raises(ConfigurationError, match="62498 members of channel groups and 4 notes are more than can be"):
        dataclasses.replace(vault, notes={**notes, "one": "more"})


@pytest.mark.parametrize("size", [0, 5, 3 * 65536 + 5])
def test_a_vault_is_refused_from_the_first_byte_too_many(
    seal_cheaply: Sealer, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plaintext = len(canonical_json(HEADER)) + size
    sealed = plaintext + plaintext // 65536 * 16 + 4096
    assert len(seal_cheaply(plaintext_of(HEADER, reference=bytes(size)), PASSPHRASE)) <= sealed
    monkeypatch.setattr(vaults, "VAULT_LIMIT_BYTES", sealed)
    vault = Vault(secret=bytes(32), reference=bytes(size), channel_groups=None)
    monkeypatch.setattr(vaults, "VAULT_LIMIT_BYTES", sealed - 1)
    with pytest.raises(ConfigurationError, match=f"would have {sealed} bytes, expected at most {sealed - 1}, which"):
        dataclasses.replace(vault)


@pytest.mark.parametrize("opened_by", [{"passphrase": PASSPHRASE}, {"vault_key": KEY}], ids=["passphrase", "key"])
def test_a_vault_of_ten_megabytes_is_read_with_memory_for_ten_megabytes(
    tmp_path: Path, seal_cheaply: Sealer, opened_by: dict[str, Any]
) -> None:
    plaintext = plaintext_of(HEADER, reference=bytes(10_000_000))
    recipient = pyrage.x25519.Recipient.from_str(KEY.recipient)
    sealed = pyrage.encrypt(plaintext, [recipient]) if "vault_key" in opened_by else seal_cheaply(plaintext, PASSPHRASE)
    (tmp_path / "v").write_bytes(sealed)
    del plaintext, sealed
    with traced() as peak:
        assert len(read_vault(tmp_path / "v", **opened_by).reference) == 10_000_000
        assert peak() < 13_000_000


@pytest.mark.parametrize(
    "opened_by", [{"passphrase": PASSPHRASE}, {"recipient": KEY.recipient}], ids=["passphrase", "key"]
)
def test_a_vault_is_sealed_with_memory_for_what_comes_of_it(
    monkeypatch: pytest.MonkeyPatch, opened_by: dict[str, str]
) -> None:
    monkeypatch.setattr(age_passphrase.seal, "__kwdefaults__", {"work_factor": 1})
    vault = Vault(secret=bytes(32), reference=bytes(10_000_000), channel_groups=None)
    with traced() as peak:
        assert len(seal_vault(vault, **opened_by)) < 10_010_000
        assert peak() < 13_000_000


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Say how much memory there was at most since this began."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def sparse(path: Path, start: bytes) -> Path:
    """Write a file as large as a vault may be, which takes no room on the disk and seconds to read."""
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(VAULT_LIMIT_BYTES)
    return path


class Watched:
    """Counts what is read of a file."""

    def __init__(self, content: bytes) -> None:
        self.stream, self.seen = io.BytesIO(content), 0

    def read(self, size: int) -> bytes:
        piece = self.stream.read(size)
        self.seen += len(piece)
        return piece


def test_what_is_not_a_vault_is_refused_at_its_beginning_however_large_it_is(
    tmp_path: Path, seal_cheaply: Sealer
) -> None:
    to_key, by_passphrase = (
        seal_vault(Vault(secret=bytes(32), reference=b"", channel_groups=None), recipient=KEY.recipient),
        seal_cheaply(plaintext_of(HEADER), PASSPHRASE),
    )
    for start, message in (
        (b"PK", "is not an age file"),
        (b"age-encryption.org/v1\n", "has a damaged header"),
        (to_key[:-1], "cannot be decrypted"),
        (by_passphrase[:-1], "cannot be decrypted"),
    ):
        path = sparse(tmp_path / "v", start)
        opened_by: dict[str, Any] = {"passphrase": PASSPHRASE} if b"scrypt" in start else {"vault_key": KEY}
        with traced() as peak:
            with pytest.raises(FileError, match=f"v': {message}"):
                read_vault(path, **opened_by)
            assert peak() < 1_000_000


@pytest.mark.parametrize(
    ("plaintext", "error", "message"),
    [
        (bytes(10_000_000), UnknownVersionError, "expected ticketguard"),
        (
            b"ticketguard.vault/1\n" + b"\xff" * 10_000_000,
            CredentialError,
            "has a header of 18446744073709551615 bytes",
        ),
        (plaintext_of({}, reference=bytes(10_000_000)), CredentialError, "has other fields"),
    ],
    ids=["no version", "endless header", "another header"],
)
def test_a_sealed_file_that_is_not_a_vault_is_read_no_further_than_shows_it(
    plaintext: bytes, error: type[Exception], message: str, seal_cheaply: Sealer
) -> None:
    recipient = pyrage.x25519.Recipient.from_str(KEY.recipient)
    for sealed, opened_by in (
        (pyrage.encrypt(plaintext, [recipient]), {"vault_key": KEY}),
        (seal_cheaply(plaintext, PASSPHRASE), {"passphrase": PASSPHRASE}),
    ):
        content = Watched(sealed)
        with pytest.raises(error, match=message):
            open_vault(content, **opened_by)  # type: ignore[arg-type]
        assert content.seen < 300_000


def test_a_vault_is_larger_than_four_gigabytes_where_its_ticket_is() -> None:
    assert VAULT_LIMIT_BYTES == TICKET_LIMIT_BYTES > 4 * 1024**3


@pytest.mark.parametrize("cut", [1, 17, 70_000])
def test_a_vault_that_is_cut_short_is_refused_although_its_reference_began(
    cut: int, seal_cheaply: Sealer, tmp_path: Path
) -> None:
    plaintext = plaintext_of(HEADER, reference=bytes(200_000))
    recipient = pyrage.x25519.Recipient.from_str(KEY.recipient)
    for sealed, opened_by in (
        (pyrage.encrypt(plaintext, [recipient]), {"vault_key": KEY}),
        (seal_cheaply(plaintext, PASSPHRASE), {"passphrase": PASSPHRASE}),
    ):
        (tmp_path / "v").write_bytes(sealed[:-cut])
        with pytest.raises(FileError, match=r"v': cannot be decrypted .*: it is damaged or cut short"):
            read_vault(tmp_path / "v", **opened_by)  # type: ignore[arg-type]


def test_a_vault_is_read_from_a_pipe(tmp_path: Path, seal_cheaply: Sealer) -> None:
    reader, writer = os.pipe()
    os.write(writer, seal_cheaply(plaintext_of(HEADER), PASSPHRASE))
    os.close(writer)
    assert read_vault(f"/dev/fd/{reader}", passphrase=PASSPHRASE).reference == b"reference"
    os.close(reader)
    os.mkfifo(tmp_path / "v")
    with pytest.raises(FileError, match="v': is a pipe that nothing writes to"):
        read_vault(tmp_path / "v", passphrase=PASSPHRASE)


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path, seal_cheaply: Sealer) -> None:
    class Failing(Watched):
        def read(self, size: int) -> bytes:
            if self.seen > 100_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    plaintext = plaintext_of(HEADER, reference=bytes(400_000))
    recipient = pyrage.x25519.Recipient.from_str(KEY.recipient)
    with pytest.raises(OSError, match="Input/output error"):
        open_vault(Failing(pyrage.encrypt(plaintext, [recipient])), vault_key=KEY)
    with pytest.raises(OSError, match="Input/output error"):
        open_vault(Failing(seal_cheaply(plaintext, PASSPHRASE)), passphrase=PASSPHRASE)


def test_a_vault_that_could_not_be_opened_is_refused_before_anything_is_trained_for_it(
    credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [[["a.weight", 0, 1, 0, 64]] * 50_000]
    with pytest.raises(ConfigurationError, match="50000 members of channel groups and 1 notes are more than can be"):
        dataclasses.replace(credential.vault, channel_groups=groups)
    with pytest.raises(ConfigurationError, match="are more than can be read again"):
        dataclasses.replace(credential.vault, notes={"long": "x" * HEADER_LIMIT_BYTES})
    monkeypatch.setattr("ticketguard.credentials.vault.VAULT_LIMIT_BYTES", 100_000)
    for reference, fits in ((bytes(90_000), True), (bytes(100_000), False)):
        if fits:
            sealed = seal_vault(dataclasses.replace(credential.vault, reference=reference), recipient=KEY.recipient)
            assert len(sealed) < 100_000
            continue
        with pytest.raises(ConfigurationError, match="expected at most 100000, which is what can be opened again"):
            dataclasses.replace(credential.vault, reference=reference)


@pytest.mark.parametrize(
    "header",
    [b'{"channelGroups":[' + b"[[],[]]," * 600_000 + b'[]],"notes":{},"secret":"00"}', b"[" * 5_000_000],
    ids=["groups", "nesting"],
)
def test_a_header_beyond_all_bounds_is_refused_before_it_is_parsed(header: bytes) -> None:
    content = VAULT_VERSION.encode() + b"\n" + len(header).to_bytes(8, "little") + header
    sealed = pyrage.encrypt(content, [pyrage.x25519.Recipient.from_str(KEY.recipient)])
    with pytest.raises(CredentialError, match=r"has a header of \d+ bytes, expected at most 4194304"):
        open_vault(sealed, vault_key=KEY)


@pytest.mark.parametrize("header", [b"[" * 4_000_000, b"[" + b"[]," * 1_000_000 + b"[]]", b'{"a":1,"a":1}', b"\xff"])
def test_a_hostile_header_within_the_bound_is_refused(header: bytes) -> None:
    content = VAULT_VERSION.encode() + b"\n" + len(header).to_bytes(8, "little") + header
    sealed = pyrage.encrypt(content, [pyrage.x25519.Recipient.from_str(KEY.recipient)])
    with pytest.raises(CredentialError, match="has a header that (is|holds) .*: it was not written by ticketguard"):
        open_vault(sealed, vault_key=KEY)


@pytest.mark.parametrize(
    "stanza", [b"\n-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43, b"\n-> x\n", b"\n-> x" + b" a" * 9000]
)
def test_stanzas_without_end_are_refused_before_they_are_read(credential: Credential, stanza: bytes) -> None:
    sealed = seal_vault(credential.vault, recipient=KEY.recipient)
    head, rest = sealed.split(b"\n---", 1)
    for content in (head + stanza * 9000 + b"\n---" + rest, head + stanza * 9000):
        with pytest.raises(FileError, match="has a damaged header, or one of more than 4096 bytes"):
            open_vault(content, vault_key=KEY)


def test_untraced_groups_stay_unknown(seal_cheaply: Sealer) -> None:
    assert open_vault(seal_cheaply(plaintext_of(HEADER), PASSPHRASE), passphrase=PASSPHRASE).channel_groups is None


def test_wrong_passphrase_is_said_to_be_wrong(seal_cheaply: Sealer) -> None:
    with pytest.raises(WrongPassphraseError, match=r"the passphrase does not open 'my.vault'"):
        open_vault(seal_cheaply(plaintext_of(HEADER), PASSPHRASE), passphrase=PASSPHRASE + " ", name="my.vault")


@pytest.mark.parametrize("flip", [0x04, 0x80])
def test_each_single_byte_of_a_vault_flipped_is_refused(seal_cheaply: Sealer, flip: int) -> None:
    content = seal_cheaply(plaintext_of(HEADER), PASSPHRASE)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= flip
        with pytest.raises(TicketguardError, match="'vault'"):
            open_vault(bytes(changed), passphrase=PASSPHRASE)


def test_damaged_content_is_not_blamed_on_the_passphrase(seal_cheaply: Sealer) -> None:
    content = seal_cheaply(plaintext_of(HEADER), PASSPHRASE)
    for damaged in (content[:-1], content[:-30] + b"x" + content[-29:], content[:150]):
        with pytest.raises(FileError, match=r"cannot be decrypted .*: it is damaged or cut short"):
            open_vault(damaged, passphrase=PASSPHRASE)


@pytest.mark.parametrize("content", [b"", b"age-encryption.org/v2\n", b"PK\3\4", b"\x80\x04."])
def test_foreign_files_are_refused(content: bytes) -> None:
    with pytest.raises(FileError, match="is not an age file"):
        open_vault(content, passphrase=PASSPHRASE)


def test_work_that_would_exhaust_memory_is_refused_at_once(seal_cheaply: Sealer) -> None:
    content = seal_cheaply(plaintext_of(HEADER), PASSPHRASE).replace(b" 1\n", b" 22\n", 1)
    with pytest.raises(FileError, match="has scrypt work factor 22, expected at most 21"):
        open_vault(content, passphrase=PASSPHRASE)


@pytest.mark.parametrize("plaintext", [b"", b"ticketguard.vault/2\n" + bytes(8), b"ticketguard.vault/1", b"\xff" * 100])
def test_unknown_versions_are_refused(seal_cheaply: Sealer, plaintext: bytes) -> None:
    with pytest.raises(UnknownVersionError, match=r"expected ticketguard\.vault/1"):
        open_vault(seal_cheaply(plaintext, PASSPHRASE), passphrase=PASSPHRASE)


@pytest.mark.parametrize("kept", [len(VAULT_VERSION) + 1, len(VAULT_VERSION) + 5, 60])
def test_vaults_that_end_inside_their_header_are_refused(seal_cheaply: Sealer, kept: int) -> None:
    with pytest.raises(CredentialError, match="ends inside its header"):
        open_vault(seal_cheaply(plaintext_of(HEADER)[:kept], PASSPHRASE), passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "has other fields than channelGroups, notes and secret"),
        ({**HEADER, "more": 1}, "has other fields"),
        ({**HEADER, "secret": "00"}, "secret has 1 bytes, expected 32"),
        ({**HEADER, "secret": 5}, "has a int where a str belongs"),
        ({**HEADER, "secret": "zz"}, "non-hexadecimal"),
        ({**HEADER, "notes": []}, "has a list where a dict belongs"),
        ({**HEADER, "notes": {"a": 1}}, "notes are not all text"),
        ({**HEADER, "channelGroups": "none"}, "has a str where a list belongs"),
        ({**HEADER, "channelGroups": [["abc"]]}, "has a str where a list belongs"),
        ({**HEADER, "channelGroups": [[["a", 0]]]}, r"member is \['a', 0\], expected a tensor name"),
        ({**HEADER, "channelGroups": [[["a", -1, 1]]]}, "expected a tensor name and integers from 0"),
        ({**HEADER, "channelGroups": [[["", 0, 1]]]}, "expected a tensor name and integers from 0"),
    ],
)
def test_malformed_headers_are_refused(seal_cheaply: Sealer, header: object, message: str) -> None:
    with pytest.raises(CredentialError, match=message):
        open_vault(seal_cheaply(plaintext_of(header), PASSPHRASE), passphrase=PASSPHRASE)


def test_empty_passphrase_is_refused(credential: Credential) -> None:
    with pytest.raises(ConfigurationError, match="the vault's passphrase is empty"):
        seal_vault(credential.vault, passphrase="")


def test_secrets_are_not_printed(credential: Credential) -> None:
    assert "secret" not in repr(credential.vault)
    assert "reference=" not in repr(credential.vault)


def test_groups_digest_depends_on_every_member(credential: Credential) -> None:
    groups = credential.vault.channel_groups
    variants = [None, [], [[]], groups, [[["fc.weight", 0, 1]]], [[["fc.weight", 1, 1]]], [[["fc.weight", 0, 2]]]]
    assert len({groups_digest(variant) for variant in variants}) == len(variants)


def test_groups_digest_does_not_tell_lists_from_tuples(credential: Credential) -> None:
    as_lists = [[list(member) for member in group] for group in credential.vault.channel_groups or ()]
    assert groups_digest(as_lists) == groups_digest(credential.vault.channel_groups)
    assert dataclasses.replace(credential.vault, channel_groups=as_lists) == credential.vault


def test_a_group_that_names_a_tensor_at_length_is_refused(seal_cheaply: Sealer) -> None:
    header = {**HEADER, "channelGroups": [[["w" * 1025, 0, 1]]]}
    with pytest.raises(CredentialError, match="expected at most 1024 characters") as refused:
        open_vault(seal_cheaply(plaintext_of(header), PASSPHRASE), passphrase=PASSPHRASE)
    assert len(str(refused.value)) < 400
    longest = {**HEADER, "channelGroups": [[["w" * 1024, 0, 1]]]}
    vault = open_vault(seal_cheaply(plaintext_of(longest), PASSPHRASE), passphrase=PASSPHRASE)
    assert vault.channel_groups == ((("w" * 1024, 0, 1),),)
