from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ticketguard.credentials.key_cost import MAX_ROUNDS, MAX_SCRYPT_COST, check_key_cost
from ticketguard.credentials.keys import Owner, load_public_key
from ticketguard.errors import ConfigurationError, CredentialError, FileError, OutputExistsError, WrongPassphraseError


@pytest.mark.parametrize("passphrase", [None, "correct horse ü"])
def test_saved_key_is_loaded_with_its_name(tmp_path: Path, passphrase: str | None) -> None:
    owner = Owner.generate("Jörg & Töchter")
    owner.save(tmp_path / "owner.key", passphrase)
    loaded = Owner.load(tmp_path / "owner.key", passphrase)
    assert (loaded.name, loaded.public_key) == (owner.name, owner.public_key)
    assert load_public_key(tmp_path / "owner.key.pub") == owner.public_key
    assert len(owner.public_key) == 32


def test_private_key_is_readable_by_its_owner_alone_and_by_other_tools(tmp_path: Path) -> None:
    owner = Owner.generate("a")
    owner.save(tmp_path / "owner.key", None)
    assert stat.S_IMODE((tmp_path / "owner.key").stat().st_mode) == 0o600
    pem = (tmp_path / "owner.key").read_bytes()
    assert load_pem_private_key(pem[pem.index(b"-----BEGIN") :], None).public_key() == owner.private_key.public_key()


def test_generated_keys_differ_and_are_not_printed() -> None:
    one, two = Owner.generate("a"), Owner.generate("a")
    assert one.public_key != two.public_key
    assert repr(one) == "Owner(name='a')"


def test_passphrase_that_is_not_needed_is_not_looked_at(tmp_path: Path) -> None:
    owner = Owner.generate("a")
    owner.save(tmp_path / "k", None)
    assert Owner.load(tmp_path / "k", "whatever").public_key == owner.public_key


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a\x1b[31m", "x" * 201])
def test_names_that_do_not_fit_on_one_line_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"owner name is .*, expected 1 to 200 printable characters"):
        Owner.generate(name)


@pytest.mark.parametrize("taken", ["owner.key", "owner.key.pub"])
def test_existing_keys_are_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(OutputExistsError, match=f"{taken}': exists already: choose another name"):
        Owner.generate("a").save(tmp_path / "owner.key", None)
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "precious"


def test_empty_passphrase_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the passphrase is empty"):
        Owner.generate("a").save(tmp_path / "k", "")
    assert not list(tmp_path.iterdir())


def test_wrong_and_missing_passphrases_are_told_apart(tmp_path: Path) -> None:
    Owner.generate("a").save(tmp_path / "k", "right")
    with pytest.raises(WrongPassphraseError, match=r"the passphrase does not open '.*k'"):
        Owner.load(tmp_path / "k", "wrong")
    with pytest.raises(CredentialError, match="is encrypted: give its passphrase"):
        Owner.load(tmp_path / "k")


def test_key_without_an_owners_name_is_refused(tmp_path: Path, owner: Owner) -> None:
    pem = owner.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "k").write_bytes(pem)
    with pytest.raises(CredentialError, match="does not name its owner: put 'Ticketguard-Owner: NAME'"):
        Owner.load(tmp_path / "k")
    (tmp_path / "k").write_bytes(b"Ticketguard-Owner: me\r\n" + pem)
    assert Owner.load(tmp_path / "k").name == "me"


@pytest.mark.parametrize("passphrase", [None, "words"])
@pytest.mark.parametrize(
    "touch",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n \r\n\n",
    ],
    ids=["byte order mark", "line breaks of Windows", "both, and blank lines"],
)
def test_keys_that_an_editor_touched_are_read(
    tmp_path: Path, passphrase: str | None, touch: Callable[[bytes], bytes]
) -> None:
    owner = Owner.generate("Jörg")
    owner.save(tmp_path / "k", passphrase)
    for name in ("k", "k.pub"):
        (tmp_path / name).write_bytes(touch((tmp_path / name).read_bytes()))
    assert Owner.load(tmp_path / "k", passphrase).public_key == load_public_key(tmp_path / "k.pub") == owner.public_key


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "k").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "k.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(CredentialError, match=r"holds a .*, expected an Ed25519 private key"):
        Owner.load(tmp_path / "k")
    with pytest.raises(CredentialError, match=r"holds a .*, expected an Ed25519 public key"):
        load_public_key(tmp_path / "k.pub")


@pytest.mark.parametrize(
    "content", [b"", b"Ticketguard-Owner: a\n", b"\x80\x04pickle", b"-----BEGIN PRIVATE KEY-----\nAA"]
)
def test_files_without_a_key_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(CredentialError, match="does not hold a private key"):
        Owner.load(tmp_path / "k")
    with pytest.raises(CredentialError, match="does not hold a public key"):
        load_public_key(tmp_path / "k")


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = bytes([len(body)]) if len(body) < 128 else bytes([0x81, len(body)])
    return bytes([tag]) + size + body


def encrypted_key(derivation: bytes) -> bytes:
    """Return an encrypted private key in PEM whose passphrase goes through *derivation*, and which nothing opens."""
    cipher = der(0x30, der(6, bytes.fromhex("60864801650304012a")), der(4, bytes(16)))
    scheme = der(0x30, der(6, bytes.fromhex("2a864886f70d01050d")), der(0x30, derivation, cipher))
    body = base64.encodebytes(der(0x30, scheme, der(4, bytes(64))))
    label = b"ENCRYPTED PRIVATE KEY-----\n"
    return b"Ticketguard-Owner: a\n-----BEGIN " + label + body + b"-----END " + label


def pbkdf2(rounds: int, *, tag: bytes = b"\x02") -> bytes:
    number = tag + b"\x09" + rounds.to_bytes(9, "big")
    return der(0x30, der(6, bytes.fromhex("2a864886f70d01050c")), der(0x30, der(4, bytes(16)), number))


def scrypt(cost: int, block: int, lanes: int) -> bytes:
    numbers = [der(2, number.to_bytes(9, "big")) for number in (cost, block, lanes)]
    return der(0x30, der(6, bytes.fromhex("2b06010401da47040b")), der(0x30, der(4, bytes(16)), *numbers))


@pytest.mark.parametrize(
    "derivation",
    [pbkdf2(2**31), pbkdf2(2**64), scrypt(2**40, 8, 1), scrypt(2**20, 8, 1), scrypt(2, 2**30, 1), scrypt(2, 1, 2**30)],
)
def test_a_key_that_would_take_hours_to_open_is_refused_at_once(tmp_path: Path, derivation: bytes) -> None:
    (tmp_path / "k").write_bytes(encrypted_key(derivation))
    with pytest.raises(CredentialError, match=r"k' takes \d+ units of work to open, expected at most \d+"):
        Owner.load(tmp_path / "k", "words")


@pytest.mark.parametrize("derivation", [pbkdf2(1_000), scrypt(2**10, 8, 1), der(0x30, b""), b"\x30\x7f"])
def test_a_key_that_no_passphrase_opens_is_said_to_be_so(tmp_path: Path, derivation: bytes) -> None:
    (tmp_path / "k").write_bytes(encrypted_key(derivation))
    with pytest.raises(CredentialError, match="the passphrase does not open|is not an encrypted key in DER"):
        Owner.load(tmp_path / "k", "words")


@pytest.mark.parametrize(
    ("largest", "dearer"),
    [
        (pbkdf2(MAX_ROUNDS), pbkdf2(MAX_ROUNDS + 1)),
        (scrypt(MAX_SCRYPT_COST // 8, 8, 1), scrypt(MAX_SCRYPT_COST // 8, 1, 9)),
        (pbkdf2(MAX_ROUNDS), pbkdf2(2**31, tag=b"\x02\x81")),  # a length in more bytes than it needs
    ],
)
def test_work_is_refused_from_the_first_step_too_many(largest: bytes, dearer: bytes) -> None:
    check_key_cost(encrypted_key(largest))
    with pytest.raises(ValueError, match="takes .* units of work to open"):
        check_key_cost(encrypted_key(dearer))


def pem(content: bytes) -> bytes:
    label = b"ENCRYPTED PRIVATE KEY-----\n"
    return b"-----BEGIN " + label + base64.encodebytes(content) + b"-----END " + label


def nested(levels: int) -> bytes:
    content = b""
    for _ in range(levels):
        content = b"\x30\x84" + len(content).to_bytes(4, "big") + content
    return content


@pytest.mark.parametrize("content", [b"\x02\x05\x01", b"\x30\x03\x02\x05\x01", nested(10), nested(2000)])
def test_der_that_ends_early_or_has_no_bottom_is_refused_before_it_is_opened(content: bytes) -> None:
    with pytest.raises(ValueError, match="is not an encrypted key in DER"):
        check_key_cost(pem(content))


@pytest.mark.parametrize("content", [b"\x30", b"\x30\x81", nested(9)])
def test_der_without_a_length_holds_nothing(content: bytes) -> None:
    check_key_cost(pem(content))


def test_keys_of_unknown_kinds_are_refused(tmp_path: Path, owner: Owner) -> None:
    ed25519, unknown = bytes.fromhex("2b6570"), bytes.fromhex("2b657f")
    private = owner.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = owner.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for label, der in (("PRIVATE", private), ("PUBLIC", public)):
        body = base64.encodebytes(der.replace(ed25519, unknown)).decode()
        (tmp_path / label).write_text(f"-----BEGIN {label} KEY-----\n{body}-----END {label} KEY-----\n")
    with pytest.raises(CredentialError, match="holds a key of another kind, expected an Ed25519 private key"):
        Owner.load(tmp_path / "PRIVATE")
    with pytest.raises(CredentialError, match="holds a key of another kind, expected an Ed25519 public key"):
        load_public_key(tmp_path / "PUBLIC")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere': cannot be read"):
        Owner.load(tmp_path / "nowhere")
