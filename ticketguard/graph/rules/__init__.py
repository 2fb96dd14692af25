"""What each tensor operation says about channels: the rules `tracing` follows.

A rule gets the operation's arguments and outputs and returns the outputs' layouts: which units lie along their axes;
positions of an axis without units have a fixed meaning (batch, space, the model's own inputs). Rules are keyed by
ATen's operator names. An operation without a rule freezes the channels it touches, which is always safe.
"""

from __future__ import annotations

from typing import Any

import torch

from ticketguard.graph.rules import lookups, normalising, planes, products, reducing, shapes
from ticketguard.graph.rules.call import Call, NotUnderstood, Rule
from ticketguard.graph.rules.general import along_axis, freeze_all, mixing, pointwise, unchanged, uniform

_FAMILIES: dict[Rule, str] = {
    uniform: "zeros ones full new_zeros new_ones new_full zeros_like ones_like full_like",
    mixing: "_softmax _safe_softmax _log_softmax",
    unchanged: "clone _to_copy detach alias lift_fresh native_dropout",
    pointwise: "copy_ hardswish prelu _prelu_kernel masked_fill where _conj log_sigmoid_forward",  # untagged by torch
    along_axis(1, "dim"): "cumsum cumprod logcumsumexp",
    along_axis(1, "dims"): "flip",
    along_axis(2, "dims"): "roll",
    products.convolution: "convolution",
    products.matrix_product: "mm addmm bmm baddbmm mv addmv dot",
    normalising.batch_norm: "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm",
    normalising.layer_norm: "native_layer_norm _fused_rms_norm",
    normalising.group_norm: "native_group_norm",
    normalising.weight_norm: "_weight_norm_interface",
    shapes.view: "view _unsafe_view _reshape_alias",
    shapes.permute: "t transpose permute",
    shapes.unsqueeze: "unsqueeze",
    shapes.squeeze: "squeeze",
    shapes.expand: "expand",
    shapes.repeat: "repeat",
    shapes.concatenate: "cat",
    shapes.stack: "stack",
    shapes.slice_: "slice",
    shapes.select: "select",
    shapes.unbind: "unbind",
    shapes.split: "split split_with_sizes unsafe_split unsafe_split_with_sizes",
    shapes.pad: "constant_pad_nd",
    lookups.embedding: "embedding _embedding_bag",
    lookups.index: "index",
    lookups.index_select: "index_select",
    lookups.index_put: "index_put",
    lookups.index_add: "index_add",
    lookups.gather: "gather",
    lookups.scatter: "scatter scatter_add",
    shapes.as_strided: "as_strided",
    shapes.as_complex: "view_as_complex",
    shapes.as_real: "view_as_real",
    reducing.reduction(): "mean sum amax amin var std var_mean std_mean prod logsumexp any all",
    reducing.reduction(2): "linalg_vector_norm norm",
    reducing.choice: "argmax argmin max min sort topk",
    planes.spatial: "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d "
    "max_pool3d_with_indices avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d upsample_linear1d "
    "upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d",
    planes.reshuffled: "pixel_shuffle pixel_unshuffle native_channel_shuffle channel_shuffle",
    planes.patches: "im2col",
    planes.folded: "col2im",
    planes.windows: "unfold",
    planes.gate: "glu",
}
_RULES: dict[str, Rule] = {name: rule for rule, names in _FAMILIES.items() for name in names.split()}


def rule_of(func: Any) -> Rule | None:
    """Return the rule of one of ATen's operators, in-place ones included; None if nothing is known about it."""
    name = func.overloadpacket.__name__
    found = _RULES.get(name) or _RULES.get(name.rstrip("_"))
    return found or (pointwise if torch.Tag.pointwise in func.tags else None)


__all__ = ["Call", "NotUnderstood", "Rule", "freeze_all", "rule_of"]
