"""Credential: claim and vault together, and the check that they belong to each other."""

from __future__ import annotations

import dataclasses
import functools
import hmac
import os
from pathlib import Path

from ticketguard.credentials import age_passphrase
from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.claim import CLAIM_LIMIT_BYTES, Claim, MarkClaim, read_claim, sign_claim
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import Vault, read_vault, seal_vault
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.errors import CredentialError, FileError
from ticketguard.files import SECRET, Output, read_whole, write_together
from ticketguard.keyed import commit
from ticketguard.ticket import AnyReference, read_reference

# A mark that is read after alignment names here what its alignment may permute.
GROUPS_PARAMETER = "channel_groups_digest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Credential:
    """What an owner proves ownership with.

    Attributes:
        claim: The public half.
        vault: The private half.
    """

    claim: Claim
    vault: Vault

    @functools.cached_property
    def reference(self) -> AnyReference:
        """The vault's unmarked ticket or start weights, as the commitments bind it; run `check` before using it.

        Raises:
            FileError, UnknownVersionError, TensorError: It cannot be read.
        """
        return read_reference(self.vault.reference)

    # Once: a vault cannot change, a claim may have thousands of marks, and whoever opens a credential checks it again.
    @functools.cached_property
    def reference_digest(self) -> bytes:
        """The digest of `reference` that enters every commitment."""
        return self.reference.digest()

    @functools.cached_property
    def _groups_digest(self) -> str | None:
        binds_groups = any(GROUPS_PARAMETER in mark.parameters for mark in self.claim.marks)
        return groups_digest(self.vault.channel_groups) if binds_groups else None

    def check(self) -> None:
        """Recompute every commitment of the claim from the vault.

        Raises:
            CredentialError: The vault's secret, reference or channel groups are not what the claim commits to.
            FileError, UnknownVersionError, TensorError: The vault's reference cannot be read.
        """
        reference_digest, groups = self.reference_digest, self._groups_digest
        for mark in self.claim.marks:
            commitment = commit(
                secret=self.vault.secret,
                owner_public_key=self.claim.owner_public_key,
                reference_digest=reference_digest,
                scheme=mark.scheme,
                version=mark.version,
                level_bits=mark.level_bits,
                parameters=canonical_json(dict(mark.parameters)),
            )
            if not hmac.compare_digest(commitment, mark.commitment):
                raise CredentialError(
                    f"the vault does not belong to the claim: its secret and reference do not give the commitment of "
                    f"'{mark.scheme}'; use the vault that was written with this claim"
                )
            if mark.parameters.get(GROUPS_PARAMETER, groups) != groups:
                raise CredentialError(
                    f"the vault does not belong to the claim: its channel groups are not those of '{mark.scheme}'; "
                    "use the vault that was written with this claim"
                )

    def mark(self, scheme: str) -> MarkClaim:
        """Return what the claim says about the mark of *scheme*.

        Raises:
            CredentialError: The claim has no such mark.
        """
        for mark in self.claim.marks:
            if mark.scheme == scheme:
                return mark
        known = ", ".join(sorted(mark.scheme for mark in self.claim.marks))
        raise CredentialError(f"the claim has no mark '{scheme}', it has {known}: use a claim that covers it")

    def commitment(self, scheme: str) -> bytes:
        """Return the commitment, 32 bytes, of the mark of *scheme*.

        Raises:
            CredentialError: The claim has no such mark.
        """
        return self.mark(scheme).commitment

    def save(
        self,
        claim_path: str | os.PathLike[str],
        vault_path: str | os.PathLike[str],
        owner: Owner,
        passphrase: str | None = None,
        *,
        recipient: str | None = None,
    ) -> None:
        """Sign the claim, seal the vault, and write both; no file is touched unless both can be made and written.

        Args:
            claim_path: Where the claim goes.
            vault_path: Where the vault goes.
            owner: Who signs; the key that the claim names.
            passphrase: What will open the vault; not together with *recipient*.
            recipient: Public half of the vault key that will open it.

        Raises:
            ConfigurationError: Not exactly one of passphrase and recipient is given, or it cannot be used.
            CredentialError: The claim names another owner's key, or claim and vault do not belong together.
            FileError: A file cannot be written.
        """
        write_together(self.outputs(claim_path, vault_path, owner, passphrase, recipient=recipient))

    def outputs(
        self,
        claim_path: str | os.PathLike[str],
        vault_path: str | os.PathLike[str],
        owner: Owner,
        passphrase: str | None = None,
        *,
        recipient: str | None = None,
    ) -> list[Output]:
        """Return what `save` writes, for a caller that writes it together with the ticket.

        Raises:
            ConfigurationError, CredentialError: As `save`.
        """
        self.check()
        signed = sign_claim(self.claim, owner)
        sealed = seal_vault(self.vault, passphrase=passphrase, recipient=recipient)
        # The vault first: it alone cannot be made again.
        return [
            Output(path=Path(vault_path), content=sealed, mode=SECRET),
            Output(path=Path(claim_path), content=signed),
        ]


def load_credential(
    claim_path: str | os.PathLike[str],
    vault_path: str | os.PathLike[str],
    passphrase: str | None = None,
    *,
    vault_key: VaultKey | None = None,
) -> Credential:
    """Read a claim and its vault, and check that they belong together.

    Args:
        claim_path: The claim file.
        vault_path: The vault file.
        passphrase: What opens the vault; not together with *vault_key*.
        vault_key: The key that opens the vault.

    Raises:
        ConfigurationError: Not exactly one of passphrase and key is given.
        FileError: A file cannot be read or is damaged.
        WrongPassphraseError: The passphrase does not open the vault.
        CredentialError: The claim fails verification, or the vault does not belong to it.
        UnknownVersionError: One was written by a version this release does not know.
    """
    content = read_whole(claim_path, limit_bytes=CLAIM_LIMIT_BYTES)
    if content.startswith(age_passphrase.MAGIC):
        raise FileError(
            path=claim_path, reason="is a vault, expected a claim", hint="give the claim first, then the vault"
        )
    claim = read_claim(content, name=claim_path)
    vault = read_vault(vault_path, passphrase=passphrase, vault_key=vault_key)
    credential = Credential(claim=claim, vault=vault)
    credential.check()
    return credential
