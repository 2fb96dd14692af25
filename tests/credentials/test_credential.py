from __future__ import annotations

import dataclasses
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ticketguard.credentials.canonical import Json, canonical_json
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.claim import MarkClaim, sign_claim
from ticketguard.credentials.credential import GROUPS_PARAMETER, Credential, load_credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.errors import ConfigurationError, CredentialError, FileError, WrongPassphraseError
from ticketguard.keyed import commit
from ticketguard.ticket import Mask, Reference

SIGNATURES = Path(__file__).parents[2] / "signatures"
VECTORS = Path(__file__).parents[1] / "vectors"
PASSPHRASE = "a public test vector"
# RFC 8032 §7.1, test 2: the key of somebody else.
OTHER_KEY = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")


def test_saved_credential_is_loaded_and_opens_with_its_passphrase_alone(
    tmp_path: Path, credential: Credential, owner: Owner
) -> None:
    claim, vault = tmp_path / "ticket.claim", tmp_path / "ticket.vault"
    credential.save(claim, vault, owner, PASSPHRASE)
    assert stat.S_IMODE(vault.stat().st_mode) == 0o600
    assert load_credential(claim, vault, PASSPHRASE) == credential
    with pytest.raises(WrongPassphraseError, match=r"does not open '.*ticket\.vault'"):
        load_credential(claim, vault, "wrong")


def test_a_vault_in_the_claims_place_is_named(tmp_path: Path) -> None:
    claim, vault = SIGNATURES / "sample-claim.json", VECTORS / "sample.vault"
    with pytest.raises(FileError, match=r"sample\.vault.* is a vault, expected a claim: give the claim first"):
        load_credential(vault, claim, PASSPHRASE)
    with pytest.raises(FileError, match="is not an age file"):
        load_credential(claim, claim, PASSPHRASE)
    key = VaultKey.generate()
    with pytest.raises(CredentialError, match="is sealed with a passphrase, not to a vault key: give its passphrase"):
        load_credential(claim, vault, vault_key=key)


def test_a_reference_is_read_and_hashed_once(credential: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("from_bytes", "digest"):
        original = getattr(Reference, name)

        def counted(*given: Any, name: str = name, original: Callable[..., Any] = original) -> Any:
            calls.append(name)
            return original(*given)

        monkeypatch.setattr(Reference, name, counted)
    opened = dataclasses.replace(credential)
    for _ in range(3):
        opened.check()
        assert len(opened.reference.mask)
    assert calls == ["from_bytes", "digest"]


def test_published_sample_opens(credential: Credential) -> None:
    assert load_credential(SIGNATURES / "sample-claim.json", VECTORS / "sample.vault", PASSPHRASE) == credential


def test_memory_for_a_vault_follows_its_size() -> None:
    tracemalloc.start()
    try:
        load_credential(SIGNATURES / "sample-claim.json", VECTORS / "sample.vault", PASSPHRASE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


def changed(credential: Credential, **changes: Any) -> Credential:
    (mark,) = credential.claim.marks
    claim = dataclasses.replace(credential.claim, marks=(dataclasses.replace(mark, **changes),))
    return dataclasses.replace(credential, claim=claim)


@pytest.mark.parametrize(
    "forge",
    [
        lambda c: changed(c, commitment=bytes(32)),
        lambda c: changed(c, scheme="trigger-set"),
        lambda c: changed(c, version=2),
        lambda c: changed(c, level_bits=63),
        lambda c: changed(c, parameters={"secret_ppm": 20_000}),
        lambda c: Credential(claim=dataclasses.replace(c.claim, owner_public_key=OTHER_KEY), vault=c.vault),
        lambda c: Credential(claim=c.claim, vault=dataclasses.replace(c.vault, secret=bytes(32))),
    ],
    ids=["commitment", "scheme", "version", "level", "parameters", "owner", "secret"],
)
def test_vault_of_another_claim_is_refused(credential: Credential, forge: Callable[[Credential], Credential]) -> None:
    credential.check()
    with pytest.raises(CredentialError, match="the vault does not belong to the claim: its secret and reference"):
        forge(credential).check()


def test_reference_made_to_suit_the_secret_is_refused(credential: Credential, reference: Reference) -> None:
    steered = Reference(
        mask=Mask(layers={"fc.weight": ~reference.mask["fc.weight"]}),
        kept_weights={"fc.weight": reference.kept_weights["fc.weight"].repeat(2)},
    )
    forged = dataclasses.replace(credential.vault, reference=steered.to_bytes())
    with pytest.raises(CredentialError, match="the vault does not belong to the claim"):
        dataclasses.replace(credential, vault=forged).check()


def test_reference_that_is_no_ticket_is_refused(credential: Credential) -> None:
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        dataclasses.replace(credential, vault=dataclasses.replace(credential.vault, reference=b"x" * 20)).check()


def test_channel_groups_bound_by_a_mark_cannot_be_exchanged(
    credential: Credential, owner: Owner, reference: Reference
) -> None:
    parameters = {"secret_ppm": 10_000, GROUPS_PARAMETER: groups_digest(credential.vault.channel_groups)}
    (mark,) = credential.claim.marks
    commitment = commit(
        secret=credential.vault.secret,
        owner_public_key=owner.public_key,
        reference_digest=reference.digest(),
        scheme=mark.scheme,
        version=mark.version,
        level_bits=mark.level_bits,
        parameters=canonical_json(parameters),
    )
    bound = changed(credential, parameters=parameters, commitment=commitment)
    bound.check()
    for groups in (None, [], [[["fc.weight", 0, 1]]]):
        forged = dataclasses.replace(bound.vault, channel_groups=groups)
        with pytest.raises(CredentialError, match="its channel groups are not those of 'planted-graph'"):
            dataclasses.replace(bound, vault=forged).check()


def test_groups_are_digested_once_however_many_marks_bind_them(
    credential: Credential, owner: Owner, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested: list[object] = []

    def counting(groups: object) -> str:
        digested.append(groups)
        return "00" * 32

    monkeypatch.setattr("ticketguard.credentials.credential.groups_digest", counting)
    marks = []
    for index in range(32):
        fields: dict[str, Any] = {"scheme": f"scheme-{index}", "version": 1, "level_bits": 64}
        parameters: dict[str, Json] = {GROUPS_PARAMETER: "00" * 32}
        commitment = commit(
            secret=credential.vault.secret,
            owner_public_key=owner.public_key,
            reference_digest=reference.digest(),
            parameters=canonical_json(parameters),
            **fields,
        )
        marks.append(MarkClaim(commitment=commitment, parameters=parameters, **fields))
    claim = dataclasses.replace(credential.claim, marks=tuple(marks))
    dataclasses.replace(credential, claim=claim).check()
    assert len(digested) == 1


def test_commitments_are_found_by_scheme(credential: Credential) -> None:
    assert credential.commitment("planted-graph") == credential.claim.marks[0].commitment
    with pytest.raises(CredentialError, match="has no mark 'qr-code', it has planted-graph"):
        credential.commitment("qr-code")


def test_nothing_is_written_for_the_wrong_owner_vault_or_passphrase(
    tmp_path: Path, credential: Credential, other_credential: Credential, owner: Owner
) -> None:
    paths = tmp_path / "claim", tmp_path / "vault"
    with pytest.raises(CredentialError, match="only the owner it names can sign it"):
        credential.save(*paths, Owner.generate("thief"), PASSPHRASE)
    with pytest.raises(CredentialError, match="does not belong to the claim"):
        other_credential.save(*paths, owner, PASSPHRASE)
    with pytest.raises(ConfigurationError, match="passphrase is empty"):
        credential.save(*paths, owner, "")
    assert not list(tmp_path.iterdir())


def test_claim_of_another_ticket_is_refused_on_loading(tmp_path: Path, credential: Credential, owner: Owner) -> None:
    foreign = changed(credential, commitment=bytes(32)).claim
    (tmp_path / "claim").write_bytes(sign_claim(foreign, owner))
    with pytest.raises(CredentialError, match="does not belong to the claim"):
        load_credential(tmp_path / "claim", VECTORS / "sample.vault", PASSPHRASE)


def test_credentials_never_import_torch() -> None:
    code = (
        "import sys; import ticketguard.credentials.credential, ticketguard.credentials.envelope; "
        "import ticketguard.credentials.merkle; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
