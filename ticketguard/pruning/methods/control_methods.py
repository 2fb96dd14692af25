"""The controls as methods: each makes, of a ticket in a file, what that ticket must be compared with."""

from __future__ import annotations

import dataclasses

from ticketguard.errors import ConfigurationError, TensorError
from ticketguard.models import load_arrays, model_of
from ticketguard.pruning.descriptions.controls import ControlConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Found, Spent, train_found
from ticketguard.pruning.methods.controls import make_control, scratch_b_factor
from ticketguard.ticket import Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Make one of the controls of a ticket, and train it by the problem's recipe.

    Raises:
        ConfigurationError: No ticket was named, it does not fit the model, or it settles what was also asked for.
        FileError: The ticket cannot be read.
    """
    config = create_config(ControlConfig, problem.method_options)
    if not config.ticket:
        raise ConfigurationError(
            f"method '{method}' is a control of a ticket: name its file with --method-option ticket=FILE "
            "(method_options={'ticket': ...})"
        )
    ticket, problem = _fitted(Ticket.load(config.ticket), problem, config.ticket)
    network = model_of(ticket, seed=problem.seed, model=problem.model)
    problem.require_fit(network)
    trial = make_control(method, ticket, seed=problem.seed, model=problem.model)
    if method == "scratch_b":
        factor = scratch_b_factor(ticket, problem.data.input_shape, model=problem.model)
        longer = dataclasses.replace(problem.training, epochs=factor * problem.training.epochs)
        problem = dataclasses.replace(problem, training=longer)
    found = Found(mask=trial.mask, start=trial.start, spent=Spent())
    return train_found(problem, network, found, method=method, structure=ticket.info.structure)


def _fitted(ticket: Ticket, problem: SearchProblem, file: str) -> tuple[Ticket, SearchProblem]:
    """Let the ticket say what the problem leaves open, and the problem which model it is.

    Raises:
        ConfigurationError: They contradict each other.
    """
    if problem.density is not None and round(problem.density * ticket.mask.size) != ticket.mask.kept:
        raise ConfigurationError(
            f"density is {problem.density:g}, but a control has that of ticket '{file}', {ticket.mask.density:g}: "
            "leave the density out"
        )
    options = {**ticket.info.model_options, **problem.model_options}
    problem = dataclasses.replace(problem, model_options=options)
    ticket = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, model_options=options))
    try:
        load_arrays(model_of(ticket, model=problem.model), ticket.weights)
    except TensorError as error:
        raise ConfigurationError(
            f"ticket '{file}' does not fit model '{problem.model_name}' (tensor '{error.name}' {error.reason}): "
            "name the ticket's own model and options"
        ) from error
    return ticket, problem
