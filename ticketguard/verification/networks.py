"""Which networks a suspect's file holds, and which of their tensors are which layers.

Names and shapes come first, then what weights look like beside the reference's. Nothing here sees a key.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.finite import NotFinite
from ticketguard.checkpoints.matching import LayerMatch, Layout, Shape
from ticketguard.checkpoints.matching.conventions import conventions_of
from ticketguard.checkpoints.packed import describe
from ticketguard.errors import UnverifiableError
from ticketguard.graph import ChannelGroup
from ticketguard.ticket import AnyReference, FloatArray
from ticketguard.verification.by_content import CLEAR_GAIN, LEAST_GAIN, SURE_GAIN, View, clear_layouts, pair_by_content

# A tensor with more weights than this, and with more than so many times those of the layers that it stands for, is not
# read: what a thief adds to a layer costs him what it costs to run, and reading takes some 40 bytes a weight.
FREE_WEIGHTS, MOST_TIMES = 2**26, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a suspect.

    Attributes:
        match: Which tensor stands for which reference layer.
        names: The tensors that can be read, by layer.
        unreadable: What is wrong with those that cannot be read at all, by layer.
        not_finite: How much is NaN or infinite, and is missing, of layers that can be read.
        is_doubtful: Whether names do not say where its layers are: some are unknown, or give some layers another shape
            although there is a tensor of every layer's.
    """

    match: LayerMatch
    names: Mapping[str, str]
    unreadable: Mapping[str, str]
    not_finite: Mapping[str, NotFinite]
    is_doubtful: bool

    @property
    def as_stored(self) -> dict[str, str]:
        """The tensors that are layers of the reference's shape, by layer."""
        return {layer: name for layer, name in self.names.items() if layer not in self.match.resized}

    @property
    def conventions(self) -> tuple[Mapping[str, Layout], ...]:
        """How the tensors may be read as layers, the likeliest way first."""
        return self.match.conventions

    def only(self, layers: Collection[str]) -> Network:
        """Return some of its *layers*; the tensors of the others may be any of them."""
        match = self.match
        pairs = {layer: name for layer, name in match.pairs.items() if layer in layers}
        conventions: list[Mapping[str, Layout]] = []
        for whole in match.conventions:
            part = {layer: whole[layer] for layer in pairs}
            if part not in conventions:
                conventions.append(part)
        others = [name for layer, name in match.pairs.items() if layer not in layers]
        return dataclasses.replace(
            self,
            names={layer: name for layer, name in self.names.items() if layer in layers},
            unreadable={},
            not_finite={layer: found for layer, found in self.not_finite.items() if layer in layers},
            match=dataclasses.replace(
                match,
                pairs=pairs,
                conventions=tuple(conventions),
                by_order=tuple(layer for layer in match.by_order if layer in layers),
                resized=tuple(layer for layer in match.resized if layer in layers),
                wrong_shapes={},
                missing=(),
                layouts={layer: match.layouts[layer] for layer in pairs},
                unclaimed=tuple(dict.fromkeys([*others, *match.unclaimed])),
                by_content=tuple(layer for layer in match.by_content if layer in layers),
            ),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks of a suspect.

    Attributes:
        readable: Those that have a layer to read; at least one.
        unreadable: Those that have layers, of which none can be read.
    """

    readable: tuple[Network, ...]
    unreadable: tuple[Network, ...]


def blocks_of(groups: Sequence[ChannelGroup]) -> dict[str, int]:
    """Return how many positions each input channel has, of the layers behind a flattened feature map."""
    return {
        member.tensor: member.block for group in groups for member in group if member.axis == 1 and member.block > 1
    }


def find_networks(suspect: Checkpoint, reference: AnyReference, *, blocks: Mapping[str, int] | None = None) -> Networks:
    """Find the suspect's networks.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        blocks: Positions of one input channel, of the linear layers behind a flattened feature map.

    Raises:
        UnverifiableError: There are none, or too many.
        FileError: The file is gone or has changed.
    """
    shapes = {name: reference.mask.shape(name) for name in reference.mask}
    matches = [
        _by_content(suspect, reference, match, blocks) for match in suspect.possible_matches(shapes, blocks=blocks)
    ]
    matches = [match for match in matches if match.pairs] or list(suspect.matches(shapes, blocks=blocks))
    networks = [_network(suspect, match, shapes) for match in matches]
    readable = tuple(network for network in networks if network.names)
    if not readable:
        raise UnverifiableError(_nothing_to_read(suspect, networks[0]))
    return Networks(readable=readable, unreadable=tuple(network for network in networks if not network.names))


def with_clear_layouts(suspect: Checkpoint, reference: AnyReference, network: Network) -> Network:
    """Return a network without the layouts that its weights contradict, where its conventions leave them open.

    It takes a look at every such tensor, which a copy that is stored as the reference is does not need.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        network: As it was found.

    Raises:
        FileError: The file is gone or has changed.
    """
    match = network.match
    in_doubt = [layer for layer in network.names if len({one[layer] for one in match.conventions}) > 1]
    said = clear_layouts(suspect, reference, {layer: (match.pairs[layer], match.layouts[layer]) for layer in in_doubt})
    if not said:
        return network
    return dataclasses.replace(network, match=_with_layouts(match, {**match.layouts, **said}, reference))


def paired_anew(
    suspect: Checkpoint,
    reference: AnyReference,
    network: Network,
    *,
    blocks: Mapping[str, int] | None = None,
    view: View | None = None,
    is_part: bool = False,
) -> Network | None:
    """Pair all of a network's layers by content, for one whose layers are not where names and the order say.

    A thief may exchange names, or move blocks up to where others were. This is another hypothesis of where the layers
    are, and no other look: the reference says which is right.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        network: As it was found.
        blocks: Positions of one input channel, of the linear layers behind a flattened feature map.
        view: Puts a tensor, taken as a layer of some name, into the order of the reference's channels, as far as that
            was found. Where some layers were, the channels that they share with others tell which these are.
        is_part: Whether these are a few layers of a larger network.

    Returns:
        The network; None if content says nothing else.
    """
    match = network.match
    shapes = {layer: layout.shape for layer, layout in match.conventions[0].items()}

    def guarded(layer: str, tensor: FloatArray) -> FloatArray:
        # The order was found for the tensor that was taken for this layer; one of another shape has none.
        return view(layer, tensor) if view is not None and tensor.shape == shapes.get(layer) else tensor

    layers = _not_fused(match, reference.mask)
    # Names that say where everything is are believed unless content is sure.
    gain = LEAST_GAIN if view is not None or network.is_doubtful else SURE_GAIN if is_part else CLEAR_GAIN
    anew, _ = _paired(suspect, reference, match, layers, blocks, None if view is None else guarded, gain)
    if (anew.pairs, anew.conventions[:1]) == (match.pairs, match.conventions[:1]):
        return None
    return _network(suspect, anew, {name: reference.mask.shape(name) for name in reference.mask})


def _by_content(
    suspect: Checkpoint, reference: AnyReference, match: LayerMatch, blocks: Mapping[str, int] | None
) -> LayerMatch:
    """Return a match whose layers without a known name were found by content."""
    layers = _not_fused(match, reference.mask)
    size = {layer: math.prod(reference.mask.shape(layer)) for layer in reference.mask}
    # Layers of the same size as one that is missing may be where it was.
    sizes = {size[layer] for layer in (*match.by_order, *match.missing, *match.wrong_shapes)}
    doubted = [layer for layer in layers if size[layer] in sizes]
    if _names_contradict(suspect, match, size.values()):
        anew, clear = _paired(suspect, reference, match, layers, blocks)
        # Unless content says so, the network may be a smaller one with tensors beside it that have the old shapes.
        match = anew if 2 * clear > len(layers) else match
    elif doubted:
        match, _ = _paired(suspect, reference, match, doubted, blocks)
    return match


def _names_contradict(suspect: Checkpoint, match: LayerMatch, sizes: Iterable[int]) -> bool:
    """Say whether there is a tensor of every layer's size, and yet names give some layers another shape, or none."""
    wanted = Counter(sizes)
    names = dict.fromkeys((*match.pairs.values(), *match.unclaimed))
    held = Counter(math.prod(suspect.shape(name)) for name in names)
    named = len(match.by_order) < len(match.pairs)
    return (
        named
        and bool(match.resized or match.wrong_shapes or match.missing)
        and all(held[size] >= count for size, count in wanted.items())
    )


def _not_fused(match: LayerMatch, layers: Iterable[str]) -> list[str]:
    """Return those of some layers that are not part of a tensor."""
    return [layer for layer in layers if layer not in match.layouts or match.layouts[layer][0].part is None]


def _paired(
    suspect: Checkpoint,
    reference: AnyReference,
    match: LayerMatch,
    layers: Sequence[str],
    blocks: Mapping[str, int] | None,
    view: View | None = None,
    gain: float = CLEAR_GAIN,
) -> tuple[LayerMatch, int]:
    """Return a match with some of its layers paired by content, and how many of these are clear."""
    kept = {layer: name for layer, name in match.pairs.items() if layer not in set(layers)}
    expected = {layer: match.pairs[layer] for layer in layers if layer in match.pairs}
    free = dict.fromkeys(name for name in (*match.pairs.values(), *match.unclaimed) if name not in set(kept.values()))
    found = pair_by_content(
        suspect,
        reference,
        layers=layers,
        tensors=list(free),
        expected=expected,
        blocks=blocks,
        view=view,
        gain=gain,
    )
    # Where layers are left over, a tensor that merely has the shape of one is nobody's.
    complete = len(found) == len(layers)
    found = {layer: item for layer, item in found.items() if complete or item.clear or layer in expected}
    used = {item.name for item in found.values()}
    # What was not compared, because of its size or because there is too much, stays where names and the order say.
    stay = {layer: name for layer, name in expected.items() if layer not in found and name not in used}
    pairs = dict(sorted({**kept, **stay, **{layer: item.name for layer, item in found.items()}}.items()))
    moved = {layer for layer, item in found.items() if match.pairs.get(layer) != item.name}
    anew = dataclasses.replace(
        match,
        pairs=pairs,
        by_order=tuple(layer for layer in match.by_order if layer in pairs and layer not in moved),
        by_content=tuple(sorted({*match.by_content, *moved} & set(pairs))),
        wrong_shapes={layer: item for layer, item in match.wrong_shapes.items() if layer not in pairs},
        missing=tuple(layer for layer in reference.mask if layer not in pairs and layer not in match.wrong_shapes),
        unclaimed=tuple(name for name in free if name not in set(pairs.values())),
    )
    layouts = {**match.layouts, **{layer: item.layouts for layer, item in found.items()}}
    clear = sum(item.clear for item in found.values())
    return _with_layouts(anew, {layer: layouts[layer] for layer in pairs}, reference), clear


def _with_layouts(match: LayerMatch, layouts: Mapping[str, Sequence[Layout]], reference: AnyReference) -> LayerMatch:
    shapes = {layer: reference.mask.shape(layer) for layer in match.pairs}
    return dataclasses.replace(
        match,
        layouts={layer: tuple(options) for layer, options in layouts.items()},
        resized=tuple(layer for layer in match.pairs if layouts[layer][0].shape != shapes[layer]),
        conventions=conventions_of(layouts, shapes),
    )


def _network(suspect: Checkpoint, match: LayerMatch, shapes: Mapping[str, Shape]) -> Network:
    too_large = _too_large(suspect, match, shapes)
    damage = suspect.damage(dict.fromkeys(name for name in match.pairs.values() if name not in too_large))
    wrong = {**damage.unreadable, **too_large}
    packed = suspect.packed()
    unknown = {layer: packed.get(match.network + layer) for layer in shapes if layer not in match.pairs}
    return Network(
        match=match,
        names={layer: name for layer, name in match.pairs.items() if name not in wrong},
        unreadable={
            **{layer: wrong[name] for layer, name in match.pairs.items() if name in wrong},
            **{layer: f"is stored packed ({form})" for layer, form in unknown.items() if form is not None},
        },
        not_finite={layer: damage.not_finite[name] for layer, name in match.pairs.items() if name in damage.not_finite},
        is_doubtful=bool(match.by_order or match.by_content)
        or _names_contradict(suspect, match, map(math.prod, shapes.values())),
    )


def _too_large(suspect: Checkpoint, match: LayerMatch, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Return what is wrong with tensors that hold far more than the layers that they stand for, by tensor."""
    wanted: Counter[str] = Counter()
    for layer, name in match.pairs.items():
        wanted[name] += math.prod(shapes[layer])
    held = {name: math.prod(suspect.shape(name)) for name in wanted}
    most = {name: max(FREE_WEIGHTS, MOST_TIMES * weights) for name, weights in wanted.items()}
    return {
        name: f"has {held[name]} weights, expected at most {most[name]} for {wanted[name]} of the reference's"
        for name in wanted
        if held[name] > most[name]
    }


def _nothing_to_read(suspect: Checkpoint, network: Network) -> str:
    layer, reason = next(iter(network.unreadable.items()))
    packed = suspect.packed()
    return (
        f"'{suspect.label}' has no layer that can be read: '{layer}' {reason}"
        + (f"; it holds {describe(packed)}" if packed else "")
        + ": ask for the weights that are in use, as floating-point numbers"
    )
