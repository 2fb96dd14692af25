"""Passphrase vaults: one stated work factor, and age's own format, held against another implementation of it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from ticketguard.credentials import age_passphrase
from ticketguard.credentials.age_passphrase import MAX_WORK_FACTOR, WORK_FACTOR
from ticketguard.credentials.credential import Credential
from ticketguard.credentials.keys import Owner
from ticketguard.credentials.vault import open_vault, seal_vault
from ticketguard.errors import ConfigurationError, FileError, WrongPassphraseError

VECTORS = Path(__file__).parents[1] / "vectors"
SIZES = [0, 1, 65535, 65536, 65537, 131072, 200_000]
PASSPHRASE = "correct horse ü"
Sealer = Callable[..., bytes]


def seal(plaintext: bytes, passphrase: bytes, *, work_factor: int) -> bytes:
    return age_passphrase.seal(io.BytesIO(plaintext), passphrase, work_factor=work_factor)


def unseal(content: bytes, passphrase: bytes, *, name: str) -> bytes:
    pieces: list[bytes] = []
    age_passphrase.unseal(io.BytesIO(content), passphrase, pieces.append, name=name)
    return b"".join(pieces)


def content_of(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def test_every_vault_is_sealed_with_the_one_stated_work_factor(credential: Credential) -> None:
    first, second = (seal_vault(credential.vault, passphrase=PASSPHRASE).split(b"\n")[1:3] for _ in range(2))
    assert re.fullmatch(rb"-> scrypt [A-Za-z0-9+/]{22} 18", first[0])
    assert first[0].endswith(b" 18")
    assert second[0].endswith(b" 18")
    assert first != second, "salt and file key are fresh"


def test_the_stated_work_factor_is_the_published_one() -> None:
    page = (Path(__file__).parents[2] / "signatures" / "claim-and-vault.md").read_text()
    assert f"work factor {WORK_FACTOR} (256 MiB of memory)" in page
    assert f"work factors above {MAX_WORK_FACTOR}" in page


@pytest.mark.parametrize("size", SIZES)
def test_another_implementation_opens_what_is_sealed(size: int) -> None:
    sealed = seal(content_of(size), PASSPHRASE.encode(), work_factor=2)
    assert pyrage.passphrase.decrypt(sealed, PASSPHRASE) == content_of(size)
    assert unseal(sealed, PASSPHRASE.encode(), name="v") == content_of(size)


@pytest.mark.parametrize("size", SIZES)
def test_what_another_implementation_sealed_is_opened(size: int, seal_cheaply: Sealer) -> None:
    assert unseal(seal_cheaply(content_of(size), PASSPHRASE), PASSPHRASE.encode(), name="v") == content_of(size)


def test_a_vault_of_an_earlier_release_is_opened(credential: Credential) -> None:
    content = (VECTORS / "rage.vault").read_bytes()
    assert b" 17\n" in content[:100], "a stopwatch chose this one"
    assert open_vault(content, passphrase="a public test vector") == credential.vault


@pytest.mark.parametrize("factor", ["22", "63", "1000", "9" * 19])
def test_work_above_the_limit_is_refused_by_name(seal_cheaply: Sealer, factor: str) -> None:
    content = seal_cheaply(b"", PASSPHRASE).replace(b" 1\n", f" {factor}\n".encode(), 1)
    with pytest.raises(FileError, match=f"has scrypt work factor {factor}, expected at most 21"):
        unseal(content, PASSPHRASE.encode(), name="v")


def test_too_little_memory_is_not_called_damage(seal_cheaply: Sealer, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    (tmp_path / "v").write_bytes(seal_cheaply(b"", PASSPHRASE).replace(b" 1\n", b" 20\n", 1))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ticketguard.credentials.vault import open_vault\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "open_vault(Path(sys.argv[1]).read_bytes(), passphrase='words', name='my.vault')\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "v"], capture_output=True, text=True, check=False)
    assert "'my.vault': takes 1024 MiB of memory to open, more than there is: the file is not at fault" in run.stderr
    assert "damaged" not in run.stderr.splitlines()[-1]


def changed_header(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new, 1)


@pytest.mark.parametrize(
    "change",
    [
        changed_header(b" 1\n", b" 01\n"),
        changed_header(b" 1\n", b" 0\n"),
        changed_header(b" 1\n", b" +1\n"),
        changed_header(b" 1\n", b" 1 \n"),
        changed_header(b" 1\n", b" 1 1\n"),
        changed_header(b" 1\n", b" 1\r\n"),
        changed_header(b"-> scrypt ", b"-> scrypt  "),
        # The same bytes in base64's other spellings: the last letter has bits to spare.
        lambda content: re.sub(rb"(-> scrypt .{21}).", rb"\1x", content, count=1),
        lambda content: re.sub(rb"(--- .{42}).", rb"\1x", content, count=1),
        changed_header(b"\n--- ", b"=\n--- "),
        changed_header(b"\n--- ", b"\n---"),
        changed_header(b"\n--- ", b"\n-> X25519 AAAA\n\n--- "),
        lambda content: content.replace(b"\n--- ", b"\n" + content.split(b"\n", 1)[1].split(b"\n---")[0] + b"\n--- "),
    ],
)
def test_a_header_of_another_form_is_refused(seal_cheaply: Sealer, change: Callable[[bytes], bytes]) -> None:
    content = seal_cheaply(b"plaintext", PASSPHRASE)
    assert change(content) != content
    with pytest.raises(FileError, match="has a damaged header"):
        unseal(change(content), PASSPHRASE.encode(), name="v")


@pytest.mark.parametrize(
    "chunks",
    [[b"a" * 65536, b""], [b"a" * 65535, b"b"], [b"", b"b"], [b"a" * 65536, b"b" * 65537]],
    ids=["empty end", "short start", "empty start", "long end"],
)
def test_chunks_of_other_sizes_are_refused(seal_cheaply: Sealer, chunks: list[bytes]) -> None:
    with pytest.raises(FileError, match="its content was changed"):
        unseal(seal_cheaply(b"", PASSPHRASE, chunks=chunks), PASSPHRASE.encode(), name="v")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[: -(5 + 16)],
        lambda content: content[: -(5 + 16) - 65552] + content[-(5 + 16) :],
        lambda content: content + content[-(5 + 16) :],
        lambda content: content[: content.index(b"\n---") + 50],
    ],
    ids=["cut", "longer", "last chunk lost", "first chunk lost", "last chunk twice", "header alone"],
)
def test_a_payload_cut_or_longer_is_refused(seal_cheaply: Sealer, change: Callable[[bytes], bytes]) -> None:
    content = seal_cheaply(bytes(65536 + 5), PASSPHRASE)
    with pytest.raises(FileError, match="it is damaged or cut short; use another copy"):
        unseal(change(content), PASSPHRASE.encode(), name="v")


def test_a_changed_header_under_the_right_key_is_refused(seal_cheaply: Sealer) -> None:
    content = bytearray(seal_cheaply(b"", PASSPHRASE))
    position = content.index(b"\n--- ") + 6
    content[position] = ord("B") if content[position] == ord("A") else ord("A")
    with pytest.raises(FileError, match="its header was changed"):
        unseal(bytes(content), PASSPHRASE.encode(), name="v")
    with pytest.raises(WrongPassphraseError, match="does not open 'v'"):
        unseal(bytes(content), b"other", name="v")


def test_a_passphrase_that_is_not_text_is_named(credential: Credential, tmp_path: Path) -> None:
    for use in (
        lambda: seal_vault(credential.vault, passphrase="\udcff"),
        lambda: open_vault(seal(b"", b"x", work_factor=1), passphrase="\udcff"),
        lambda: Owner.generate("a").save(tmp_path / "k", "\udcff"),
    ):
        with pytest.raises(ConfigurationError, match="the passphrase is not text in UTF-8"):
            use()
    assert not list(tmp_path.iterdir())
