from __future__ import annotations

import numpy as np
import torch

from nets import mlp, reference_of, resnet
from ticketguard.graph import channel_groups, mask_graph
from ticketguard.ticket import Mask


def test_without_groups_every_layer_is_a_bipartite_graph_of_its_kept_kernels() -> None:
    layer = np.zeros((2, 3, 2, 2), dtype=np.bool_)
    layer[0, 1, :, 0] = True
    layer[1, 2, 1, 1] = True
    graph = mask_graph(Mask(layers={"conv": layer}))
    assert graph.number_of_nodes() == 5
    assert dict(graph.edges) == {
        (("conv", "in", 1), ("conv", "out", 0)): {"layers": {"conv": 2}, "weights": 2},
        (("conv", "in", 2), ("conv", "out", 1)): {"layers": {"conv": 1}, "weights": 1},
    }


def test_groups_join_layers_to_paths_from_input_to_output() -> None:
    model = mlp()
    reference, _ = reference_of(model, density=0.2, seed=0)
    graph = mask_graph(reference.mask, channel_groups(model, torch.zeros(1, 3, 8, 8)))
    assert graph.number_of_nodes() == 192 + 40 + 30 + 10
    assert sum(weights for _, _, weights in graph.edges(data="weights")) == reference.mask.kept
    assert graph.number_of_edges() == reference.mask.kept


def test_layers_between_the_same_channels_share_edges() -> None:
    model = resnet()
    reference, _ = reference_of(model, density=0.05, seed=0)
    graph = mask_graph(reference.mask, channel_groups(model, torch.zeros(1, 3, 8, 8)))
    assert sum(weights for _, _, weights in graph.edges(data="weights")) == reference.mask.kept
    assert all(sum(edge["layers"].values()) == edge["weights"] for edge in graph.edges.values())
