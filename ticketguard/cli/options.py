"""Options and questions that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ticketguard.errors import ConfigurationError
from ticketguard.settings import MAX_SEED

if TYPE_CHECKING:
    from ticketguard.credentials.credential import Credential

PASSPHRASE_VARIABLE = "TICKETGUARD_PASSPHRASE"  # noqa: S105  # The name of the variable, not a passphrase.
PASSPHRASE_LIMIT_BYTES = 4096

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
force_option = click.option("--force", is_flag=True, help="Replace output files that exist.")
passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help=f"File whose first line is the passphrase. Default: ${PASSPHRASE_VARIABLE}, else a prompt.",
)
vault_key_option = click.option(
    "--vault-key", type=click.Path(path_type=Path), help="Vault key file, for a vault that is sealed to a key."
)
trust_option = click.option(
    "--trust-ticket-code",
    is_flag=True,
    help="Use the import paths, folders and options that TICKET names, as if you had given them: they run code and "
    "read files.",
)
seed_type = click.IntRange(0, MAX_SEED)


def seed_option(note: str) -> Callable[[AnyFunction], AnyFunction]:
    """Return the option of a command's seed, which is drawn by default; *note* says what follows from it."""
    return click.option("--seed", type=seed_type, help=f"Seed. {note}")


resume_option = click.option(
    "--resume", is_flag=True, help="Continue where an interrupted run of this command stopped."
)

_DATA_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--data-dir", "folder", type=click.Path(), help="Folder that holds the data set's files."),
    click.option("--test-data", "test_path", type=click.Path(), help="Folder or tar of the test images."),
    click.option("--train-limit", type=click.IntRange(min=1), help="Use this many training examples."),
    click.option("--test-limit", type=click.IntRange(min=1), help="Use this many test examples."),
    click.option("--image-size", type=click.IntRange(min=1), help="Resize images to this many pixels a side."),
    click.option("--modulus", type=click.IntRange(min=1), help="Modulus of modular-addition's sums."),
    click.option("--download", is_flag=True, default=None, help="Download the data set if it is not there."),
)
_TRAINING_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--epochs",
        type=click.FloatRange(min=0, min_open=True),
        help="Passes over the training data. This and the other training options default to the ticket's recipe or, "
        "if there is no ticket yet, to the one for its model and data.",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), help="Examples in a batch."),
    click.option("--lr", "learning_rate", type=click.FloatRange(min=0, min_open=True), help="Learning rate."),
    click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), help="Momentum of SGD."),
    click.option("--weight-decay", type=click.FloatRange(min=0), help="Weight decay."),
    click.option("--optimizer", type=click.Choice(["sgd", "adam", "adamw"]), help="Optimiser."),
    click.option("--schedule", type=click.Choice(["step", "cosine", "constant"]), help="Learning-rate schedule."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16", "auto"]),
        help="Arithmetic of the training steps; auto uses bf16 on an accelerator that has it.",
    ),
    click.option("--device", type=click.Choice(["auto", "cpu"]), help="auto uses an accelerator if there is one."),
    click.option(
        "--compile", is_flag=True, default=None, help="Compile the network first: for long runs of large networks."
    ),
)


def data_options(function: AnyFunction) -> AnyFunction:
    """Add the options of the data loader."""
    for option in reversed(_DATA_OPTIONS):
        function = option(function)
    return function


def take_data_options(options: dict[str, Any]) -> dict[str, Any]:
    """Move the data options that were given out of a command's *options*."""
    names = ("folder", "test_path", "train_limit", "test_limit", "image_size", "modulus", "download")
    return {name: value for name in names if (value := options.pop(name)) is not None}


def files_named(*values: object) -> tuple[Path, ...]:
    """Return the files that options name among other things: an archive of data, the ticket that a control is of."""
    texts = [value for value in values if isinstance(value, str | os.PathLike)]
    return tuple(Path(text) for text in texts if os.path.isfile(text))  # noqa: PTH113 - false for any text, not an error


def training_options(function: AnyFunction) -> AnyFunction:
    """Add the training recipe's options; what is not given keeps the recipe's own value."""
    for option in reversed(_TRAINING_OPTIONS):
        function = option(function)
    return function


def take_training(options: dict[str, Any]) -> dict[str, Any]:
    """Move the training options that were given out of a command's *options*."""
    names = (
        "epochs",
        "batch_size",
        "learning_rate",
        "momentum",
        "weight_decay",
        "optimizer",
        "schedule",
        "precision",
        "device",
        "compile",
    )
    return {name: value for name in names if (value := options.pop(name)) is not None}


def read_passphrase(path: Path | None, *, purpose: str, confirm: bool = False) -> str:
    """Take the passphrase from a file, the environment, or a prompt at the terminal.

    Args:
        path: A file whose first line it is, if one was named.
        purpose: What it opens or protects, for the prompt.
        confirm: Ask twice, for a passphrase that is new.

    Raises:
        ConfigurationError: None was given and there is no terminal to ask at, or it is empty.
        FileError: The file cannot be read.
    """
    from ticketguard.files import read_whole

    if path is not None:
        try:
            text = read_whole(path, limit_bytes=PASSPHRASE_LIMIT_BYTES).decode("utf-8-sig")
            passphrase = text.split("\n", 1)[0].rstrip("\r")
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"'{path}' is not text: expected a passphrase on its first line") from error
    elif PASSPHRASE_VARIABLE in os.environ:
        passphrase = os.environ[PASSPHRASE_VARIABLE]
    elif not sys.stdin.isatty():
        raise ConfigurationError(f"no passphrase for {purpose}: give --passphrase-file or set {PASSPHRASE_VARIABLE}")
    else:
        passphrase = click.prompt(f"Passphrase for {purpose}", hide_input=True, confirmation_prompt=confirm, err=True)
    if not passphrase:
        raise ConfigurationError(f"the passphrase for {purpose} is empty: choose one of several words")
    return passphrase


def read_unlocker(passphrase_file: Path | None, vault_key: Path | None) -> dict[str, Any]:
    """Take what opens a vault, as `load_credential` takes it: a vault key if one is named, else a passphrase.

    Raises:
        ConfigurationError: There is no passphrase, and no terminal to ask at.
        FileError: A file cannot be read, or is not a vault key.
    """
    if vault_key is None:
        return {"passphrase": read_passphrase(passphrase_file, purpose="the vault")}
    from ticketguard.credentials.vault_key import VaultKey

    return {"vault_key": VaultKey.load(vault_key)}


def read_credential(claim: Path, vault: Path, *, passphrase_file: Path | None, vault_key: Path | None) -> Credential:
    """Read the claim and open the vault that a command was given.

    Raises:
        ConfigurationError: They are files of another kind, or there is no passphrase and no terminal to ask at.
        TicketguardError: As `load_credential`.
    """
    from ticketguard.credentials.credential import load_credential
    from ticketguard.reporting.documents import require_credential

    require_credential(claim, vault)
    return load_credential(claim, vault, **read_unlocker(passphrase_file, vault_key))


def refuse_to_replace(
    outputs: tuple[Path, ...],
    *,
    force: bool,
    inputs: tuple[Path | None, ...] = (),
    own: tuple[Path, ...] = (),
) -> None:
    """Stop before the work starts if its outputs would overwrite something, or could not be written.

    Args:
        outputs: Files that the command will write.
        force: Replace files that exist.
        inputs: Files that the command reads: never replaced, a key or ticket that is lost cannot be found again.
        own: Files among *outputs* that an interrupted run of the command wrote.

    Raises:
        ConfigurationError: An output exists and *force* is not set, or it is an input, or two outputs are the same
            file.
        FileError: An output is a folder or device, or its folder cannot be written to.
    """
    from ticketguard.files import require_writable

    taken = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path.resolve() in taken:
            raise ConfigurationError(
                f"'{path}' is an input of this command and will not be replaced: choose another name"
            )
        require_writable(path)
        # A link that points nowhere is somebody's too.
        if os.path.lexists(path) and not force and path not in own:
            raise ConfigurationError(f"'{path}' exists: choose another name, or replace it with --force")
    if len({path.resolve() for path in outputs}) != len(outputs):
        raise ConfigurationError(
            f"outputs share a name: {', '.join(str(path) for path in outputs)}: give each of them its own"
        )


def parse_assignments(pairs: tuple[str, ...], *, option: str) -> dict[str, Any]:
    """Read repeated ``NAME=VALUE`` options; a value that is JSON is read as such, else it is text.

    Raises:
        ConfigurationError: A pair has no name or no equals sign, or a name is given twice.
    """
    import json

    assignments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise ConfigurationError(f"{option} is '{pair}', expected NAME=VALUE")
        if name in assignments:
            raise ConfigurationError(f"{option} gives '{name}' twice: give it once")
        try:
            assignments[name] = json.loads(text)
        except (ValueError, RecursionError):
            assignments[name] = text
    return assignments
