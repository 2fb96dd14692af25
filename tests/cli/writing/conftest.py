"""An owner, a ticket and what embeds a mark into it, for tests of the files that commands write."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketguard.credentials.credential import load_credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault_key import VaultKey

SMALL = ("--train-limit", "200", "--test-limit", "50", "--epochs", "2", "--batch-size", "32")
FIND = ("find", "--model", "mlp", "--data", "digits", "--density", "0.2", "--method", "random", *SMALL)


class Story:
    """An owner, a ticket, and the command that embeds a mark into it."""

    def __init__(self, base: Path, out: Path) -> None:
        self.base, self.out = base, out
        self.paths = [out / name for name in ("marked.safetensors", "claim.json", "vault.age")]
        self.folder = out / "marked.safetensors.embed-run"
        self.key = VaultKey.load(base / "vault.key")

    @property
    def embed(self) -> list[str]:
        return ["embed", str(self.base / "ticket.safetensors"), *SMALL, *self._marking]

    @property
    def find_marked(self) -> list[str]:
        return [*FIND, *self._marking]

    @property
    def _marking(self) -> list[str]:
        marked, claim, vault = map(str, self.paths)
        return [
            "--owner", str(self.base / "owner.key"), "--marks", "planted-graph", "--level-bits", "32",
            "--vault-recipient", self.key.recipient, "--out", marked, "--claim", claim, "--vault", vault,
        ]  # fmt: skip

    def secret(self) -> bytes:
        return load_credential(self.paths[1], self.paths[2], vault_key=self.key).vault.secret


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ticketguard.pipeline import find

    folder = tmp_path_factory.mktemp("durable")
    Owner.generate("Ada").save(folder / "owner.key", None)
    VaultKey.generate().save(folder / "vault.key")
    options = {"train_limit": 200, "test_limit": 50}
    ticket = find("mlp", data="digits", method="random", density=0.2, data_options=options, training={"epochs": 1})
    ticket.save(folder / "ticket.safetensors")
    return folder


@pytest.fixture
def story(base: Path, tmp_path: Path) -> Story:
    return Story(base, tmp_path)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
