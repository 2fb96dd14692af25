"""``ticketguard find``: run the pruning engine and write a ticket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ticketguard.cli.group import DONE
from ticketguard.cli.marking import MARKING_NAMES, Marking, start_marking_options, take_marking
from ticketguard.cli.options import (
    data_options,
    files_named,
    force_option,
    json_option,
    parse_assignments,
    resume_option,
    seed_option,
    take_data_options,
    take_training,
    training_options,
)
from ticketguard.cli.output import print_lines
from ticketguard.cli.progress import ProgressBar
from ticketguard.cli.runs import Result, open_run
from ticketguard.errors import ConfigurationError

if TYPE_CHECKING:
    from ticketguard.checkpoints.checkpoints import Checkpoint
    from ticketguard.ticket import Ticket


def _list_methods(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from ticketguard.pruning import METHODS
    from ticketguard.pruning.descriptions.options import describe_options

    for method in METHODS.values():
        print_lines([f"{method.name}: {method.summary}"])
        for name, (default, note) in describe_options(method.config).items():
            shown = f"{default:.4g}" if isinstance(default, float) else json.dumps(default).strip('"')
            print_lines(click.wrap_text(f"{name}={shown}  {note}", 110, "    ", "        ").splitlines())
    ctx.exit()


@click.command(name="find", short_help="Find a winning lottery ticket.")
@click.option(
    "--model",
    required=True,
    help="Model: mlp, resnet20, resnet32, resnet56, resnet18, resnet50, supernet, modular_mlp, transformer, or an "
    "import path package.module:factory.",
)
@click.option(
    "--model-option", multiple=True, metavar="NAME=VALUE", help="Argument of the model's factory; repeatable."
)
@click.option(
    "--data",
    required=True,
    help="digits, fashion-mnist, cifar10, cifar100, modular-addition, a folder or tar of class folders, "
    "or package.module:factory.",
)
@data_options
@click.option("--method", default="imp", show_default=True, help="Pruning method; --methods lists them.")
@click.option(
    "--method-option", multiple=True, metavar="NAME=VALUE", help="Argument of the method, such as prune_fraction=0.2."
)
@click.option(
    "--methods",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_methods,
    help="List the pruning methods with their options, and exit.",
)
@click.option(
    "--density",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the prunable weights to keep.",
)
@click.option(
    "--pretrained", type=click.Path(path_type=Path), help="Trained dense checkpoint, for methods that start from one."
)
@click.option("--rewind", type=click.Path(path_type=Path), help="Checkpoint that the ticket is trained from.")
@click.option(
    "--network",
    metavar="PREFIX",
    help="In --pretrained and --rewind files that hold several networks, take the one whose names start with PREFIX.",
)
@training_options
@seed_option(
    "By default one is drawn, that nobody can guess, printed, and kept in the ticket: whoever knows it can find the "
    "ticket again. With --owner it follows from the vault's secret, and is neither printed nor in the ticket."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="ticket.safetensors", show_default=True, help="Ticket file."
)
@click.option(
    "--owner",
    type=click.Path(path_type=Path),
    help="The owner's private key file: the ticket is marked from the start, instead of afterwards by embed.",
)
@start_marking_options
@resume_option
@force_option
@json_option
def command(
    model: str,
    model_option: tuple[str, ...],
    data: str,
    method: str,
    method_option: tuple[str, ...],
    density: float | None,
    pretrained: Path | None,
    rewind: Path | None,
    network: str | None,
    seed: int | None,
    out: Path,
    owner: Path | None,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Find a winning lottery ticket: prune, rewind, retrain, until the density is reached.

    Checkpoints are kept beside the ticket while the search runs, so that --resume can continue after an interruption.
    With --owner the ticket is marked from the start: signs of the weights that it starts from come from the owner's
    key, and the search sees the secret edges of the owner's mark. It comes with a claim and a vault, as from embed. An
    unmarked ticket that embed will mark is as secret as the vault: anyone who has it can remove the mark. It is written
    so that only its owner can read it.

    Several accelerators, or machines, train together under 'accelerate launch -m ticketguard find ...'; each batch is
    split among them, and the first process writes the ticket.
    """
    from ticketguard.credentials.keys import Owner
    from ticketguard.files import PUBLIC, SECRET, Output
    from ticketguard.pipeline.finding import find_marked_requested, find_requested
    from ticketguard.pipeline.request import SearchRequest
    from ticketguard.pipeline.runs import RunOptions
    from ticketguard.training import in_first_process

    _refuse_idle_options(owner)
    marking = take_marking(options, given_start=pretrained is not None or rewind is not None)
    written = (out,) if owner is None else (out, marking.claim, marking.vault)
    given_data = take_data_options(options)
    given_method = parse_assignments(method_option, option="--method-option")
    named = files_named(data, *given_data.values(), *given_method.values())
    inputs = (owner, pretrained, rewind, marking.passphrase_file, *named)
    run = open_run("find", written, resume=resume, force=force, inputs=inputs)
    if (code := run.finished(written, as_json=as_json)) is not None:
        return code
    passphrase = None if owner is None else marking.passphrase()
    key = None if owner is None else Owner.load(owner, passphrase)
    with ProgressBar() as progress:
        request = SearchRequest(
            model=model,
            data=data,
            density=density,
            method=method,
            training=take_training(options),
            seed=seed,
            model_options=parse_assignments(model_option, option="--model-option"),
            data_options=given_data,
            method_options=given_method,
            pretrained=_open(pretrained, network),
            rewind=_open(rewind, network),
            run=RunOptions(workdir=run.folder, resume=resume, progress=progress),
        )
        if key is None:
            ticket = find_requested(request)
        else:
            ticket, credential = find_marked_requested(
                request,
                owner=key,
                marks=marking.marks,
                level_bits=marking.level_bits,
                rescale=marking.rescale,
                leave_out=marking.are_usual,
            )
    result = _result(ticket, out, None if owner is None else marking)

    def end() -> None:
        sealed = [] if key is None else marking.outputs(credential, key, passphrase)
        found = Output(path=out, content=ticket.to_bytes(), mode=SECRET if key is None else PUBLIC)
        run.finish([*sealed, found], result, as_json=as_json)

    # Of several processes that train together the first one writes and prints.
    in_first_process(end)
    return DONE


def _refuse_idle_options(owner: Path | None) -> None:
    """Refuse options about a mark where none is planted.

    Raises:
        ConfigurationError: One was given.
    """
    context = click.get_current_context()
    for name in MARKING_NAMES if owner is None else ():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigurationError(f"{flag} sets up a mark, but no mark is planted: add --owner, or leave it out")


def _result(ticket: Ticket, out: Path, marking: Marking | None) -> Result:
    """Return what is printed of a ticket that was found; *marking* is None where no mark was planted."""
    from ticketguard.reporting.documents import ticket_document
    from ticketguard.reporting.text import document_lines

    # A marked ticket is for others, who could find the unmarked one by the seed.
    drawn = {} if ticket.info.seed is None else {"seed": ticket.info.seed}
    credentials = {} if marking is None else {"claim": str(marking.claim), "vault": str(marking.vault)}
    return Result(
        document={"version": "ticketguard.find/1", "file": str(out), **credentials, **ticket_document(ticket)},
        lines=document_lines(
            {
                "ticket": out,
                **credentials,
                **drawn,
                "density": ticket.mask.density,
                "edges": ticket.mask.kept,
                "accuracy": ticket.info.accuracy,
                "dense_accuracy": "not measured" if ticket.info.dense_accuracy is None else ticket.info.dense_accuracy,
            }
        ),
    )


def _open(path: Path | None, network: str | None) -> Path | Checkpoint | None:
    """Return a file of weights, or the network in it if it holds several and one was named."""
    from ticketguard.checkpoints.checkpoints import Checkpoint

    if path is None or network is None or not Checkpoint(path).networks():
        return path
    return Checkpoint(path, network=network)
