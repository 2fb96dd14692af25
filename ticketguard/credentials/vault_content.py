"""What is inside a vault's encryption: a version line, a JSON header and the reference ticket's bytes.

It is read a piece at a time and refused at the first byte that no vault has there, so that what is not a vault costs
its beginning, and a vault the memory of its reference.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping

from ticketguard.credentials.canonical import canonical_json, parse_canonical
from ticketguard.credentials.channel_groups import PlainGroup, expect, groups_from_json, groups_to_json
from ticketguard.errors import CredentialError, UnknownVersionError

VAULT_VERSION = "ticketguard.vault/1"
VERSION_LIMIT_BYTES = 64
LENGTH_BYTES = 8
# Far more than any model's channel groups take: those of a network of 1000 layers are 100 kB.
HEADER_LIMIT_BYTES = 4 * 1024**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What stands before the reference.

    Attributes:
        secret: The owner's secret bytes.
        channel_groups: The channel groups; None if the model could not be traced.
        notes: Whatever else the owner wants to find again.
    """

    secret: bytes = dataclasses.field(repr=False)
    channel_groups: tuple[PlainGroup, ...] | None
    notes: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Return the JSON."""
        return canonical_json(
            {
                "channelGroups": groups_to_json(self.channel_groups),
                "notes": dict(self.notes),
                "secret": self.secret.hex(),
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Header:
        """Undo `to_bytes`.

        Raises:
            ValueError: It is not a header.
        """
        document = parse_canonical(content)
        if not isinstance(document, dict) or set(document) != {"channelGroups", "notes", "secret"}:
            raise ValueError("has other fields than channelGroups, notes and secret")
        return cls(
            secret=bytes.fromhex(expect(document["secret"], str)),
            channel_groups=groups_from_json(document["channelGroups"]),
            notes=expect(document["notes"], dict),
        )


def before_reference(header: Header) -> bytes:
    """Return all that stands before the reference."""
    content = header.to_bytes()
    return b"".join((VAULT_VERSION.encode(), b"\n", len(content).to_bytes(LENGTH_BYTES, "little"), content))


class ContentReader:
    """A file to write a vault's plaintext to, in order and in pieces of any size.

    Args:
        name: What error messages call the vault.
    """

    def __init__(self, name: object) -> None:
        self._name = name
        self._start = bytearray()
        self._header: Header | None = None
        self._reference = io.BytesIO()

    def write(self, piece: bytes) -> int:
        """Take the next bytes.

        Raises:
            CredentialError: The header is malformed, or too long.
            UnknownVersionError: The version is unknown.
        """
        if self._header is not None:
            return self._reference.write(piece)
        self._start += piece
        if len(self._start) >= VERSION_LIMIT_BYTES or b"\n" in self._start:
            self._read_start()
        return len(piece)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def finish(self) -> tuple[Header, bytes]:
        """Return the header and the reference, once all is written.

        Raises:
            CredentialError: It ends before them.
            UnknownVersionError: The version is unknown.
        """
        if self._header is None:
            self._end_of_version()
            raise CredentialError(f"vault '{self._name}' ends inside its header: it was not written completely")
        return self._header, self._reference.getvalue()

    def _end_of_version(self) -> int:
        version, newline, _ = bytes(self._start[:VERSION_LIMIT_BYTES]).partition(b"\n")
        if version != VAULT_VERSION.encode() or not newline:
            found = version.decode("utf-8", errors="replace")
            raise UnknownVersionError(what=f"vault '{self._name}'", found=found, known=(VAULT_VERSION,))
        return len(version) + 1

    def _read_start(self) -> None:
        start = self._end_of_version() + LENGTH_BYTES
        if len(self._start) < start:
            return
        size = int.from_bytes(self._start[start - LENGTH_BYTES : start], "little")
        if size > HEADER_LIMIT_BYTES:
            raise CredentialError(
                f"vault '{self._name}' has a header of {size} bytes, expected at most {HEADER_LIMIT_BYTES}: "
                "it was not written by ticketguard"
            )
        if len(self._start) < start + size:
            return
        try:
            self._header = Header.from_bytes(bytes(self._start[start : start + size]))
        except ValueError as error:
            raise malformed(self._name, error) from error
        self._reference.write(self._start[start + size :])
        self._start.clear()


def malformed(name: object, error: ValueError) -> CredentialError:
    """Return what is raised where a header is not what a vault has."""
    return CredentialError(f"vault '{name}' has a header that {error}: it was not written by ticketguard")
