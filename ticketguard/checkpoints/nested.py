"""The state dicts inside what a training script saved: one network, or several under keys of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

# State of the training and not of a network; an optimizer's moments have its weights' names and shapes.
_NOT_NETWORKS = ("optim", "sched", "lr_sched", "scaler", "grad", "momentum", "loops", "callbacks", "rng", "random")
_MASKS = frozenset({"mask", "masks"})
# Deep enough for {"model": {"state_dict": …}}.
_DEEPEST = 3


def find_tensors(document: Any, is_tensor: Callable[[object], bool]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the tensors of every state dict in *document*, and what the names of each start with.

    A state dict maps names to tensors, one of two axes or more among them. If there is one, its names are as they are;
    of several, they follow the keys. Masks under a key of their own go beside the weights they are named after.

    Args:
        document: What was loaded: mappings, and whatever else.
        is_tensor: Says whether a value is a tensor.
    """
    found = dict(_state_dicts(document, is_tensor, keys=(), seen=set()))
    masks = {keys: state for keys, state in found.items() if keys and keys[-1].lower() in _MASKS}
    networks = {keys: state for keys, state in found.items() if keys not in masks}
    if not networks:
        networks, masks = masks, {}
    prefixes = {keys: "".join(f"{key}." for key in keys) if len(networks) > 1 else "" for keys in networks}
    tensors = {prefixes[keys] + name: tensor for keys, state in networks.items() for name, tensor in state.items()}
    for keys, state in masks.items():
        for name, tensor in state.items():
            # Beside the network that was kept under the same key, or beside the only one.
            prefix = prefixes.get(keys[:-1], next(iter(prefixes.values())) if len(prefixes) == 1 else f"{keys[0]}.")
            tensors.setdefault(f"{prefix}{name.removesuffix('_mask')}_mask", tensor)
    return tensors, tuple(prefixes.values()) if len(prefixes) > 1 else ()


def _state_dicts(
    document: Any, is_tensor: Callable[[object], bool], *, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    # One that is held under several keys is one, and is walked once.
    if not isinstance(document, Mapping) or id(document) in seen:
        return
    seen.add(id(document))
    tensors = {name: value for name, value in document.items() if isinstance(name, str) and is_tensor(value)}
    if any(len(tensor.shape) >= 2 for tensor in tensors.values()):
        yield keys, tensors
    if len(keys) < _DEEPEST:
        for key, value in document.items():
            if isinstance(key, str) and not key.lower().startswith(_NOT_NETWORKS):
                yield from _state_dicts(value, is_tensor, keys=(*keys, key), seen=seen)
