"""``ticketguard verify``: does a suspect derive from the ticket that a claim marks?"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from ticketguard.cli.group import NOT_CHECKED, NOT_SUPPORTED, SUPPORTED
from ticketguard.cli.options import json_option, passphrase_option, read_credential, vault_key_option
from ticketguard.cli.output import print_json, print_lines, print_message

if TYPE_CHECKING:
    from ticketguard.credentials.credential import Credential
    from ticketguard.verification.verdict import Verdict

EXIT_CODES = {"supported": SUPPORTED, "not_supported": NOT_SUPPORTED, "inconclusive": NOT_CHECKED}


@click.command(name="verify", short_help="Say whether a suspect derives from the ticket a claim marks.")
@click.argument("suspect", type=click.Path(path_type=Path), required=False)
@click.option("--endpoint", metavar="URL", help="URL of a model that speaks the Open Inference Protocol v2.")
@click.option(
    "--predictor", metavar="MODULE:NAME", help="A Python callable that takes one input and returns scores or a label."
)
@click.option(
    "--network",
    metavar="PREFIX",
    help="In a file that holds several networks, read the one whose names start with PREFIX, such as ema.; by "
    "default all that fit the claim equally well are read, and p is corrected for their number.",
)
@click.option("--claim", type=click.Path(path_type=Path), required=True, help="The signed claim.")
@click.option("--vault", type=click.Path(path_type=Path), required=True, help="The owner's vault.")
@click.option("--owner-key", type=click.Path(path_type=Path), help="Public key that the claim must be signed by.")
@click.option(
    "--level-bits",
    type=click.IntRange(1, 256),
    default=64,
    show_default=True,
    help="Weakest level to accept: a claim may ask for a stricter level than p ≤ 2^-BITS, not a weaker one.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for each answer from an endpoint or ONNX file.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, 86_400),
    default=300.0,
    show_default=True,
    help="Seconds that faults may cost in all; when they are used up, the answers so far are judged.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    help="File that keeps every answer; one from an earlier run is continued, so name only one that you kept "
    "yourself. An endpoint's answers are kept beside the vault until the questioning is over.",
)
@click.option(
    "--controls",
    metavar="DATA",
    help="Ordinary labelled inputs (test examples of a name, path or package.module:factory), asked if the triggers "
    "prove nothing; if they are answered at chance, the verdict is inconclusive.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Look on where the evidence is enough, for the smallest p: align weights too, all layers of them, ask every "
    "trigger. It takes longer and never weakens a verdict.",
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A new folder for what marks show to a person: a QR code as it was read, and cleaned.",
)
@passphrase_option
@vault_key_option
@json_option
def command(
    suspect: Path | None,
    endpoint: str | None,
    predictor: str | None,
    network: str | None,
    claim: Path,
    vault: Path,
    owner_key: Path | None,
    level_bits: int,
    timeout: float,
    patience: float,
    journal: Path | None,
    controls: str | None,
    thorough: bool,
    pictures: Path | None,
    passphrase_file: Path | None,
    vault_key: Path | None,
    as_json: bool,
) -> int:
    """Say whether SUSPECT derives from the ticket that the claim marks.

    SUSPECT is a checkpoint (safetensors, a .pt/.pth state dict, or the *.index.json or folder of one in several files),
    whose tensors are read and whose code is never run, or an .onnx file, which is asked for answers. --endpoint and
    --predictor are asked for answers too: in SUSPECT's place, or beside a checkpoint of the same model, where weights
    and answers give one verdict, corrected for two tests.

    Exits with 0 if the claim is supported, 1 if it is not, 3 if that could not be decided.
    """
    from ticketguard.credentials.keys import load_public_key

    if suspect is None and endpoint is None and predictor is None:
        raise click.UsageError("Give a suspect: a file, --endpoint or --predictor.")
    if endpoint is not None and predictor is not None:
        raise click.UsageError("Give --endpoint or --predictor: one place to ask for answers.")
    if (journal or controls) and not (endpoint or predictor or _is_onnx(suspect)):
        raise click.UsageError("--journal and --controls go with something that is asked for answers.")
    if pictures is not None:
        from ticketguard.reporting.pictures import require_empty_folder

        require_empty_folder(pictures)
    _begin_to_load_what_verifies()
    parts = _open(suspect, endpoint, predictor, timeout, network)
    public_key = None if owner_key is None else load_public_key(owner_key)
    credential = read_credential(claim, vault, passphrase_file=passphrase_file, vault_key=vault_key)
    kept = _kept_answers(vault, credential, parts[-1].target) if endpoint is not None and journal is None else []
    from ticketguard.pipeline import verify

    # A suspect's own code may print; standard output is for the verdict.
    with contextlib.redirect_stdout(sys.stderr):
        verdict = verify(
            parts[0],
            credential,
            answers=parts[1] if len(parts) > 1 else None,
            owner_public_key=public_key,
            level_bits=level_bits,
            patience_s=patience,
            journal=journal or next(iter(kept), None),
            controls=controls,
            thorough=thorough,
            note=print_message,
        )
    _end_journals(kept, verdict)
    if pictures is not None:
        from ticketguard.reporting.pictures import write_pictures

        print_message(pictures_note(write_pictures(verdict, pictures)))
    if as_json:
        print_json(verdict.to_json())
    else:
        from ticketguard.reporting.text import verdict_lines

        print_lines(verdict_lines(verdict))
    return EXIT_CODES[verdict.status]


def pictures_note(shown: Sequence[Mapping[str, Any]]) -> str:
    """Say which pictures were written."""
    if not shown:
        return "none of the claim's marks shows a picture"
    return f"pictures: {', '.join(file for mark in shown for file in mark['files'])}"


def _begin_to_load_what_verifies() -> None:
    """Import statistics and the rest in a thread: Python is idle while a passphrase opens the vault, for a second."""

    def load() -> None:
        with contextlib.suppress(ImportError):  # told where it is needed
            importlib.import_module("ticketguard.pipeline.verifying")
            importlib.import_module("ticketguard.verification.statistics")

    threading.Thread(target=load).start()


def _is_onnx(suspect: Path | None) -> bool:
    return suspect is not None and suspect.suffix.lower() == ".onnx"


def _open(
    suspect: Path | None, endpoint: str | None, predictor: str | None, timeout: float, network: str | None
) -> list[Any]:
    """Return what is examined: a checkpoint, something that answers, or first one and then the other."""
    if network is not None and (suspect is None or _is_onnx(suspect)):
        raise click.UsageError("--network names a part of a checkpoint's weights: give a checkpoint as SUSPECT.")
    parts: list[Any] = []
    if suspect is not None and _is_onnx(suspect):
        if endpoint is not None or predictor is not None:
            raise click.UsageError("An .onnx file is asked for answers: give it alone, or a checkpoint of weights.")
        from ticketguard.predictors.onnx import OnnxPredictor

        parts.append(OnnxPredictor(suspect, timeout_s=timeout))
    elif suspect is not None:
        from ticketguard.checkpoints.checkpoints import Checkpoint

        parts.append(Checkpoint(suspect, network=network))
    if endpoint is not None:
        from ticketguard.predictors.http import HttpPredictor

        parts.append(HttpPredictor(endpoint, timeout_s=timeout))
    if predictor is not None:
        from ticketguard.predictors.function import CallablePredictor

        parts.append(CallablePredictor(_load_callable(predictor), target=predictor))
    return parts


def _kept_answers(vault: Path, credential: Credential, target: str) -> list[Path]:
    """Return the files beside the vault that keep an endpoint's answers, one a mark, if they can be written.

    Raises:
        FileError: There is one already: who gave the vault may have given that too.
    """
    from ticketguard.errors import FileError
    from ticketguard.files import require_writable
    from ticketguard.verification.registry import journals_of, marks_read_from

    commitments = [mark.commitment for mark in marks_read_from(credential.claim.marks, "answers")]
    name = hashlib.sha256(b"".join(commitments) + target.encode()).hexdigest()[:12]
    first = vault.with_name(f"{vault.name}.answers-{name}.jsonl")
    paths = list(journals_of(credential.claim.marks, first).values())
    # A journal is not signed: a claimant can write one that has every label, and put it beside the vault.
    for path in paths:
        if os.path.lexists(path):
            raise FileError(
                path=path,
                reason="has answers of this endpoint to this claim",
                hint=f"if an earlier run of yours left it, continue with --journal {shlex.quote(str(first))}; "
                f"otherwise delete it, since its writer chose the answers",
            )
    try:
        for path in paths:
            require_writable(path)
    except FileError as error:
        print_message(f"answers are not kept ({error}): --journal names a file for them")
        return []
    return paths


def _end_journals(kept: list[Path], verdict: Verdict) -> None:
    """Remove journals that nobody asked for once their questioning is over: a later run asks anew."""
    there = [path for path in kept if path.exists()]
    if there and verdict.was_cut_short:
        print_message(
            f"the answers so far are in '{there[0]}': continue from there with --journal {shlex.quote(str(kept[0]))}"
        )
        return
    for path in there:
        path.unlink()


def _load_callable(path: str) -> Callable[..., Any]:
    """Load what ``--predictor`` names.

    Raises:
        ConfigurationError: There is no such thing, or it cannot be called.
    """
    from ticketguard.errors import ConfigurationError
    from ticketguard.import_paths import load_object

    function = load_object(path)
    if not callable(function):
        raise ConfigurationError(f"--predictor '{path}' is a {type(function).__name__}, expected something to call")
    return cast("Callable[..., Any]", function)
