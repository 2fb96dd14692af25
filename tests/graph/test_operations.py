"""What single operations do to channels, each between two layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ticketguard.graph import channel_groups, group_channels, permute


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.function(inputs)


class First(nn.Module):
    """A recurrent or attention layer that returns more than its outputs."""

    def __init__(self, layer: nn.Module, *, copies: int = 1) -> None:
        super().__init__()
        self.layer, self.copies = layer, copies

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(*[inputs] * self.copies)[0]


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * torch.sigmoid(self.expand(torch.relu(self.reduce(inputs.mean((2, 3), keepdim=True)))))


class GlobalResponse(nn.Module):
    """ConvNeXt V2's normalisation, channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = inputs.permute(0, 2, 3, 1)
        size = torch.linalg.vector_norm(inputs, dim=(1, 2), keepdim=True)
        scaled = inputs * (size / (size.mean(-1, keepdim=True) + 1e-6))
        return torch.addcmul(self.bias, self.weight, scaled).add(inputs).permute(0, 3, 1, 2)


class Named(nn.Module):
    """Adds rows of a table, which whole numbers in the checkpoint choose; another table's columns are added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner = nn.Parameter(torch.randn(7, 3)), nn.Parameter(torch.randn(3, 8))
        self.register_buffer("order", torch.tensor([[0, 6, 2, 2, 5]]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.table[self.order] @ self.inner


def images(*between: nn.Module, made: int = 12, given: int = 12) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, made, 1), *between, nn.Conv2d(given, 2, 1))


def signals(*between: nn.Module, made: int = 8, given: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(6, made), *between, nn.Linear(given, 2))


def shuffled_by_hand(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.view(1, 3, 4, 4, 4).transpose(1, 2).reshape(1, 12, 4, 4)


def put(inputs: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(5, inputs.shape[-1]).to(inputs)
    found[torch.tensor([3, 1])] = inputs[0, :2]
    return found.index_add(0, torch.tensor([0, 0]), inputs[0, :2]).unsqueeze(0)


def taken(inputs: torch.Tensor) -> torch.Tensor:
    order = inputs.mean(-1).argsort(-1)[..., None].expand(-1, -1, inputs.shape[-1])
    return torch.gather(inputs, 1, order)


def scattered(inputs: torch.Tensor) -> torch.Tensor:
    order = torch.arange(inputs.shape[1])[None, :, None].expand(*inputs.shape)
    return torch.zeros_like(inputs).scatter(1, order, inputs)


def only_its_shape(inputs: torch.Tensor) -> torch.Tensor:
    return inputs + torch.ones(inputs[..., -1].shape).to(inputs)[..., None]


PLANE, ROWS = (1, 3, 4, 4), (1, 5, 6)
# Per operation: the network, its input's shape, and how many channels can be moved.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "convolutions of signals": (
        lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 2, 3)),
        (1, 3, 16),
        8,
    ),
    "convolutions of volumes": (
        lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.AvgPool3d(2), nn.Conv3d(8, 2, 1)),
        (1, 3, 4, 4, 4),
        8,
    ),
    "transposed": (lambda: images(nn.ConvTranspose2d(12, 7, 2, stride=2), given=7), PLANE, 12 + 7),
    "transposed in groups": (lambda: images(nn.ConvTranspose2d(12, 9, 2, groups=3), given=9), PLANE, 3),
    "transposed depthwise": (lambda: images(nn.ConvTranspose2d(12, 12, 2, groups=12)), PLANE, 12),
    "pixels from channels": (lambda: images(nn.PixelShuffle(2), made=48), PLANE, 12),
    "channels from pixels": (lambda: images(nn.PixelUnshuffle(2), given=48), PLANE, 12),
    "channels shuffled": (lambda: images(nn.ChannelShuffle(3)), PLANE, 12),
    "channels shuffled by hand": (lambda: images(Apply(shuffled_by_hand)), PLANE, 12),
    "group norm": (lambda: images(nn.GroupNorm(4, 12)), PLANE, 4),
    "group norm of one group": (lambda: images(nn.GroupNorm(1, 12)), PLANE, 12),
    "instance norm": (lambda: images(nn.InstanceNorm2d(12, affine=True)), PLANE, 12),
    "global response norm": (lambda: images(GlobalResponse(12)), PLANE, 12),
    "squeeze and excite": (lambda: images(SqueezeExcite(12, 5)), PLANE, 12 + 5),
    "gated": (lambda: images(nn.GLU(1), made=24), PLANE, 12),
    "weights of a length": (
        lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 12, 1)), nn.ReLU(), weight_norm(nn.Conv2d(12, 2, 1))),
        PLANE,
        12,
    ),
    "enlarged": (lambda: images(nn.Upsample(scale_factor=2, mode="bicubic")), PLANE, 12),
    "padded by reflection": (lambda: images(nn.ReflectionPad2d(1)), PLANE, 12),
    "pooled channels last": (
        lambda: images(Apply(lambda x: x.to(memory_format=torch.channels_last)), nn.AdaptiveAvgPool2d(1)),
        PLANE,
        12,
    ),
    "windows as columns": (
        lambda: nn.Sequential(nn.Conv2d(3, 12, 1), nn.Unfold(3), Apply(lambda x: x.transpose(1, 2)), nn.Linear(108, 2)),
        PLANE,
        12,
    ),
    "columns as windows": (
        lambda: images(nn.Unfold(3), nn.Fold((4, 4), 3)),
        PLANE,
        12,
    ),
    "windows as an axis": (
        lambda: signals(Apply(lambda x: x.unfold(1, 2, 1).flatten(2)), given=16),
        ROWS,
        8,
    ),
    "places rolled": (lambda: images(Apply(lambda x: x.roll((1, 2), (2, 3)))), PLANE, 12),
    "channels rolled": (lambda: images(Apply(lambda x: x.roll(1, 1))), PLANE, 0),
    "places summed up": (lambda: signals(Apply(lambda x: x.cumsum(1))), ROWS, 8),
    "channels summed up": (lambda: signals(Apply(lambda x: x.cumsum(-1))), ROWS, 0),
    "places flipped": (lambda: signals(Apply(lambda x: x.flip(1))), ROWS, 8),
    "largest of places": (lambda: signals(Apply(lambda x: x.max(1).values)), ROWS, 8),
    "place of the largest channel": (lambda: signals(Apply(lambda x: x * x.argmax(-1, keepdim=True))), ROWS, 0),
    "largest of all": (lambda: signals(Apply(lambda x: x / x.max())), ROWS, 8),
    "larger of two": (lambda: signals(Apply(lambda x: torch.max(x, x * 2))), ROWS, 8),
    "deviation of channels": (lambda: signals(Apply(lambda x: x / x.std(-1, keepdim=True))), ROWS, 8),
    "largest two channels": (lambda: signals(Apply(lambda x: x.topk(2).values), given=2), ROWS, 0),
    # The five that are not named are of no use, so they may be anywhere.
    "channels that the code names": (lambda: signals(Apply(lambda x: x[..., [3, 1, 2]]), given=3), ROWS, 3 + 5),
    "rows that a checkpoint names": (lambda: signals(Named()), ROWS, 8 + 3),
    "places that the values name": (lambda: signals(Apply(taken)), ROWS, 8),
    "values put in places": (lambda: signals(Apply(put)), ROWS, 8),
    "values scattered over places": (lambda: signals(Apply(scattered)), ROWS, 8),
    "stacked": (lambda: signals(Apply(lambda x: torch.stack([x, -x], -1).flatten(2)), given=16), ROWS, 8),
    "repeated": (lambda: signals(Apply(lambda x: x.repeat(1, 2, 3)), given=24), ROWS, 8),
    "each repeated": (lambda: signals(Apply(lambda x: x.repeat_interleave(3, -1)), given=24), ROWS, 8),
    "a matrix times a vector": (lambda: signals(Apply(lambda x: torch.mv(x[0].t(), x[0, :, 0] * 0 + 1))), ROWS, 0),
    "one channel scales all": (lambda: signals(Apply(lambda x: x[..., :1] * x)), ROWS, 7),
    "one channel's shape is used": (lambda: signals(Apply(only_its_shape)), ROWS, 8),
    "one channel is added": (lambda: signals(Apply(lambda x: x + x[..., -1][..., None])), ROWS, 0),
    "recurrent": (lambda: signals(First(nn.LSTM(8, 7, batch_first=True)), given=7), ROWS, 8 + 7),
    "gated recurrent": (lambda: signals(First(nn.GRU(8, 7, batch_first=True)), given=7), ROWS, 8 + 7),
    "attention": (lambda: signals(First(nn.MultiheadAttention(8, 4, batch_first=True), copies=3)), ROWS, 8 + 4 + 8),
    "a transformer's layer": (lambda: signals(nn.TransformerEncoderLayer(8, 4, 9, batch_first=True)), ROWS, 8 + 4 + 9),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_follow_an_operation(name: str) -> None:
    factory, shape, channels = CASES[name]
    model = factory().double().eval()
    groups = channel_groups(model, torch.zeros(shape))
    assert sum(map(group_channels, groups)) == channels
    generator = np.random.default_rng(0)
    orders = [np.roll(np.arange(group_channels(group)), 1) for group in groups]
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    other = copy.deepcopy(model)
    other.load_state_dict({key: torch.as_tensor(array) for key, array in permute(state, groups, orders).items()})
    inputs = torch.from_numpy(generator.standard_normal(shape))
    with torch.no_grad():
        assert torch.allclose(model(inputs), other(inputs), rtol=0, atol=1e-10)
