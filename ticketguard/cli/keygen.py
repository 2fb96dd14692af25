"""``ticketguard keygen``: an owner key pair, or a vault key."""

from __future__ import annotations

from pathlib import Path

import click

from ticketguard.cli.options import json_option, passphrase_option, read_passphrase
from ticketguard.cli.output import print_document


@click.command(name="keygen", short_help="Make an owner's key pair, or a vault key.")
@click.option("--name", help="The owner's name, as claims will show it.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Private key file; an owner's public key goes beside it, with .pub added. Default: owner.key, or vault.key.",
)
@passphrase_option
@click.option("--no-passphrase", is_flag=True, help="Leave the private key readable to anyone who reads the file.")
@click.option(
    "--vault-key",
    is_flag=True,
    help="Make a key that vaults are sealed to, for machines that cannot type a passphrase.",
)
@json_option
def command(
    name: str | None,
    out: Path | None,
    passphrase_file: Path | None,
    no_passphrase: bool,
    vault_key: bool,
    as_json: bool,
) -> None:
    """Make an Ed25519 key pair for an owner, or with --vault-key a key that vaults are sealed to.

    An owner's private key signs claims: keep it and its passphrase. The public key is for everybody.
    """
    from ticketguard.files import require_new

    if vault_key:
        if name is not None or passphrase_file is not None:
            raise click.UsageError("A vault key has no owner's name and no passphrase.")
        _make_vault_key(out or Path("vault.key"), as_json=as_json)
        return
    if name is None:
        raise click.UsageError("Missing option '--name'.")
    out = out or Path("owner.key")
    for path in (out, Path(f"{out}.pub")):
        require_new(path)
    passphrase = None if no_passphrase else read_passphrase(passphrase_file, purpose="the new key", confirm=True)
    _make_owner(name, out, passphrase, as_json=as_json)


def _make_owner(name: str, out: Path, passphrase: str | None, *, as_json: bool) -> None:
    from ticketguard.credentials.keys import Owner

    owner = Owner.generate(name)
    owner.save(out, passphrase)
    print_document(
        {
            "version": "ticketguard.keygen/1",
            "owner": owner.name,
            "private_key": str(out),
            "public_key": f"{out}.pub",
            "public_key_hex": owner.public_key.hex(),
            "encrypted": passphrase is not None,
        },
        as_json=as_json,
    )


def _make_vault_key(out: Path, *, as_json: bool) -> None:
    from ticketguard.credentials.vault_key import VaultKey

    key = VaultKey.generate()
    key.save(out)
    print_document(
        {"version": "ticketguard.keygen/1", "vault_key": str(out), "recipient": key.recipient}, as_json=as_json
    )
