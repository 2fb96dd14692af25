"""Architectures by name, or the user's own by import path, and their weights as arrays."""

from __future__ import annotations

from ticketguard.models.arrays import (
    PRUNABLE,
    load_arrays,
    mask_tensors,
    named_parameters,
    not_prunable,
    prunable_layers,
    require_parameters,
    state_arrays,
    tied_names,
    unwrapped_name,
)
from ticketguard.models.blocks import REMOVED_BLOCKS, Block, removable_blocks, remove_blocks
from ticketguard.models.building import MODELS, Factory, build_model, model_factory
from ticketguard.models.of_ticket import CUT_STRUCTURES, model_of, trained_network, whole_model_of
from ticketguard.models.shrinking import cuttable_groups, drop_missing_branches, remove_channels, resize_to

__all__ = [
    "CUT_STRUCTURES",
    "MODELS",
    "PRUNABLE",
    "REMOVED_BLOCKS",
    "Block",
    "Factory",
    "build_model",
    "cuttable_groups",
    "drop_missing_branches",
    "load_arrays",
    "mask_tensors",
    "model_factory",
    "model_of",
    "named_parameters",
    "not_prunable",
    "prunable_layers",
    "removable_blocks",
    "remove_blocks",
    "remove_channels",
    "require_parameters",
    "resize_to",
    "state_arrays",
    "tied_names",
    "trained_network",
    "unwrapped_name",
    "whole_model_of",
]
