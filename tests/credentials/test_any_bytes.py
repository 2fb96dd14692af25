"""Whatever bytes stand where a key, claim or vault is expected, what is raised is ours."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.claim import read_claim
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.envelope import seal
from ticketguard.credentials.keys import Owner, load_public_key
from ticketguard.credentials.vault import Vault, open_vault, seal_vault
from ticketguard.credentials.vault_content import VAULT_VERSION
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.errors import TicketguardError

SAMPLE = (Path(__file__).parents[2] / "signatures" / "sample-claim.json").read_bytes()
STATEMENT = json.loads(base64.b64decode(json.loads(SAMPLE)["payload"]))
KEY = VaultKey.generate()
RECIPIENT = pyrage.x25519.Recipient.from_str(KEY.recipient)
SEALED = seal_vault(
    Vault(secret=bytes(32), reference=b"reference", channel_groups=[[["a", 0, 1]]]), recipient=KEY.recipient
)
FILES = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def edits(draw: st.DrawFn, content: bytes) -> bytes:
    """Give *content* with a few places cut, filled or exchanged."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 20)))
        content = content[:start] + draw(st.binary(max_size=8) | st.just(content[start:stop] * 2)) + content[stop:]
    return content


def paths(document: Any, start: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where a JSON document has values."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [start, *(path for key, value in items for path in paths(value, (*start, key)))]


def exchanged(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(document, dict):
        return {**document, path[0]: exchanged(document[path[0]], path[1:], value)}
    return [exchanged(item, path[1:], value) if index == path[0] else item for index, item in enumerate(document)]


@settings(deadline=None)
@given(st.binary(max_size=300) | edits(SAMPLE))
def test_claims(content: bytes) -> None:
    with contextlib.suppress(TicketguardError):
        read_claim(content)


@settings(deadline=None)
@given(st.sampled_from(paths(STATEMENT)), VALUES)
def test_signed_claims_of_any_content(owner: Owner, path: tuple[Any, ...], value: Any) -> None:
    with contextlib.suppress(TicketguardError):
        read_claim(seal(canonical_json(exchanged(STATEMENT, path, value)), owner.private_key))


@settings(deadline=None)
@given(
    st.binary(max_size=300) | edits(SEALED) | st.binary(max_size=100).map(b"age-encryption.org/v1\n-> X25519 ".__add__)
)
def test_vaults(content: bytes) -> None:
    with contextlib.suppress(TicketguardError):
        open_vault(content, vault_key=KEY)


@settings(deadline=None)
@given(
    st.sampled_from(["secret", "notes", "channelGroups", "more"]),
    VALUES,
    st.binary(max_size=20),
    st.integers(-3, 3) | st.integers(0, 2**64 - 1),
)
def test_sealed_vaults_of_any_content(
    credential: Credential, field: str, value: Any, reference: bytes, wrong: int
) -> None:
    header = canonical_json({"channelGroups": [[["a", 0, 1]]], "notes": {}, "secret": "00" * 32, field: value})
    size = (len(header) + wrong) % 2**64
    content = VAULT_VERSION.encode() + b"\n" + size.to_bytes(8, "little") + header + reference
    with contextlib.suppress(TicketguardError):
        vault = open_vault(pyrage.encrypt(content, [RECIPIENT]), vault_key=KEY)
        Credential(claim=credential.claim, vault=vault).check()


@pytest.mark.parametrize("load", [lambda path: Owner.load(path, "words"), Owner.load, load_public_key, VaultKey.load])
def test_key_files(tmp_path: Path, load: Callable[[Path], object]) -> None:
    path = tmp_path / "k"
    Owner.generate("Ada").save(path, "words")
    private, public = path.read_bytes(), (tmp_path / "k.pub").read_bytes()
    KEY.save(tmp_path / "vault.key")
    vault_key = (tmp_path / "vault.key").read_bytes()

    @FILES
    @given(st.binary(max_size=300) | edits(private) | edits(public) | edits(vault_key))
    def any_bytes(content: bytes) -> None:
        path.write_bytes(content)
        with contextlib.suppress(TicketguardError):
            load(path)

    any_bytes()
