"""Layer lottery: fewer residual blocks ("When Layers Play the Lottery, all Tickets Win at Initialization")."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from ticketguard.errors import ConfigurationError
from ticketguard.models import REMOVED_BLOCKS, Block, build_model, removable_blocks
from ticketguard.pruning.descriptions.layer_lottery import LayerLotteryConfig
from ticketguard.pruning.descriptions.options import create_config
from ticketguard.pruning.engine.at_initialisation import Scorer
from ticketguard.pruning.engine.dense import Pretrained, pretrained_network
from ticketguard.pruning.engine.interface import SearchProblem
from ticketguard.pruning.engine.result import Found, Spent, train_found
from ticketguard.pruning.methods.grasp import balanced_sample, gradient_flow_scores
from ticketguard.pruning.methods.snip import connection_sensitivity
from ticketguard.ticket import Mask, Ticket


def find(problem: SearchProblem, *, method: str) -> Ticket:
    """Return a ticket without the blocks of the lowest scores.

    Blocks that change resolution or width are never removed. The ticket is physically smaller: the blocks' tensors
    are gone, its model's options say so, and its mask keeps all that remains.

    Raises:
        ConfigurationError: The model has no residual blocks that can be removed, or fewer than asked for; or the
            density cannot be met by removing blocks.
    """
    config = create_config(LayerLotteryConfig, problem.method_options)
    score = _scorer(problem, config)
    network = problem.build()
    everything = problem.everything(network)
    blocks = _blocks_of(problem, network, everything)
    _require_possible(problem, config, blocks, everything)
    start = problem.start_state(network)
    trained = _trained(problem, config, network, method=method)
    begun = time.perf_counter()
    of_weights, spent = score(network, everything)
    scores = {
        block.name: float(sum(of_weights[layer].sum(dtype=np.float64) for layer in block.layers)) for block in blocks
    }
    removed = _lowest(problem, config, blocks, scores, everything)
    spent = spent + Spent(seconds=time.perf_counter() - begun)
    before = problem.model_options.get(REMOVED_BLOCKS, ())
    options = {**problem.model_options, REMOVED_BLOCKS: sorted([*before, *removed])}
    smaller = build_model(problem.model, options=options, seed=problem.seed)
    left = {name: start[name] for name in start if not name.startswith(tuple(f"{block}." for block in removed))}
    found = Found(
        mask=problem.everything(smaller),
        start=left,
        spent=spent if trained is None else spent + trained.spent,
        dense_accuracy=_dense_accuracy(problem, config, trained),
        history=({"block_scores": scores, "removed_blocks": sorted(removed)},),
    )
    return train_found(problem, smaller, found, method=method, structure="block", model_options=options)


def _scorer(problem: SearchProblem, config: LayerLotteryConfig) -> Scorer:
    """Return what scores weights, so that what its data lacks is found out before any training."""
    if config.score == "snip":
        problem.require_batch(config.examples, option="examples")
        return lambda network, layers: (
            connection_sensitivity(network, layers, problem=problem, examples=config.examples),
            Spent(examples=config.examples, steps=1),
        )
    chosen = balanced_sample(problem.data, per_class=config.per_class, seed=problem.seed)
    return lambda network, layers: gradient_flow_scores(network, layers, problem, chosen, config.temperature)


def _blocks_of(problem: SearchProblem, network: nn.Module, everything: Mask) -> tuple[Block, ...]:
    example = problem.data.scaled(problem.data.train_inputs[:1])
    blocks = removable_blocks(network, example, layers=tuple(everything))
    if not blocks:
        raise ConfigurationError(
            f"model '{problem.model_name}' has no residual blocks that can be removed: 'layer_lottery' needs blocks "
            "whose shortcut is the identity, such as those of resnet20"
        )
    return blocks


def _require_possible(
    problem: SearchProblem, config: LayerLotteryConfig, blocks: Sequence[Block], everything: Mask
) -> None:
    """Check before any training that so much can be removed.

    Raises:
        ConfigurationError: It cannot, or it is not said how much, or twice.
    """
    if config.score_after == "init" and problem.pretrained is not None:
        raise ConfigurationError(
            "method option 'score_after' is 'init', which does not use a trained network: leave --pretrained "
            "(pretrained=) out, or set score_after=training"
        )
    if config.blocks and problem.density is not None:
        raise ConfigurationError("a density and blocks were given: leave one of them out")
    if not config.blocks and problem.density is None:
        raise ConfigurationError(
            "'layer_lottery' needs to know how much to remove: give --method-option blocks=N, or a density"
        )
    if config.blocks > len(blocks):
        raise ConfigurationError(
            f"method option 'blocks' is {config.blocks}, expected at most the {len(blocks)} that can be removed from "
            f"model '{problem.model_name}'"
        )
    least = 1.0 - _share(blocks, everything)
    if problem.density is not None and problem.density < least:
        raise ConfigurationError(
            f"density is {problem.density:g}, but model '{problem.model_name}' without all its {len(blocks)} "
            f"removable blocks keeps {least:.3g} of its weights: raise it"
        )


def _share(blocks: Sequence[Block], everything: Mask) -> float:
    """Return the share of the prunable weights that lies in *blocks*."""
    return sum(everything[layer].size for block in blocks for layer in block.layers) / everything.size


def _trained(
    problem: SearchProblem, config: LayerLotteryConfig, network: nn.Module, *, method: str
) -> Pretrained | None:
    """Leave *network* in the state that is scored; return what its training was, if there was one."""
    if config.score_after == "init":
        return None
    epochs = config.pretrain_epochs or problem.training.epochs
    return pretrained_network(problem, network, epochs=epochs, method=method)


def _dense_accuracy(problem: SearchProblem, config: LayerLotteryConfig, trained: Pretrained | None) -> float | None:
    """Return the dense network's accuracy where it was trained as long as the ticket."""
    as_long = config.pretrain_epochs in (0.0, problem.training.epochs)
    return trained.accuracy if trained is not None and problem.pretrained is None and as_long else None


def _lowest(
    problem: SearchProblem,
    config: LayerLotteryConfig,
    blocks: Sequence[Block],
    scores: Mapping[str, float],
    everything: Mask,
) -> list[str]:
    """Return the blocks of the lowest scores: so many, or until the density is met."""
    order = sorted(blocks, key=lambda block: (scores[block.name], block.name))
    count = config.blocks
    if problem.density is not None:
        count = next(
            number for number in range(len(order) + 1) if 1.0 - _share(order[:number], everything) <= problem.density
        )
    return [block.name for block in order[:count]]
