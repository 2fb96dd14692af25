"""Marked chains of equal square layers, of any size, that are made and written a layer at a time.

Finding and training a ticket of 10^9 weights is no part of what its verification costs: mask, weights and what training
does to them are drawn.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

import ticketguard as tg
from benchmarks.shared.planted_claims import claimed
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.planted_graph import PlantedGraph
from ticketguard.ticket import Mask, Reference, Ticket, TicketInfo
from ticketguard.ticket.bits import PackedLayer, PackedLayers, pack_bits

Layer = npt.NDArray[np.float32]
KEPT, CORRELATION = 0.05, 0.7
SECRET = bytes(range(32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """Files of a marked chain.

    Attributes:
        folder: Where its claim, vault and vault key lie.
        layers: How many it has.
        width: Channels of each.
        groups: Its channel groups, as a vault keeps them.
        reference: The unmarked ticket.
        binding: The owner's key.
    """

    folder: Path
    layers: int
    width: int
    groups: list[list[list[object]]]
    reference: Reference
    binding: Binding

    @classmethod
    def make(cls, folder: Path, *, layers: int, width: int) -> Chain:
        """Draw a reference, claim it, and write the credential."""
        names = [f"layer{index:04d}.weight" for index in range(layers)]
        packed: dict[str, PackedLayer] = {}
        weights: dict[str, Layer] = {}
        for index, name in enumerate(names):
            generator = np.random.default_rng((0, index))
            mask = generator.random((width, width), dtype=np.float32) < KEPT
            packed[name] = PackedLayer(bits=pack_bits(mask), shape=mask.shape)
            weights[name] = generator.standard_normal(int(np.count_nonzero(mask)), dtype=np.float32)
        reference = Reference(mask=Mask(layers=PackedLayers(packed)), kept_weights=weights)
        groups: list[list[list[object]]] = [
            [[one, 0, 1, 0, width], [other, 1, 1, 0, width]] for one, other in itertools.pairwise(names)
        ]
        owner = tg.Owner.generate("benchmark")
        parameters = {"secret_ppm": 10_000, "share_ppm": 50_000}
        credential = claimed(reference, SECRET, parameters, owner=owner, groups=groups)
        key = tg.VaultKey.generate()
        key.save(folder / "vault.key")
        credential.save(folder / "claim.json", folder / "vault", owner=owner, recipient=key.recipient)
        binding = Binding(secret=SECRET, commitment=credential.claim.marks[0].commitment)
        return cls(folder=folder, layers=layers, width=width, groups=groups, reference=reference, binding=binding)

    def copies(self) -> Iterator[tuple[str, Layer]]:
        """Yield a marked copy's layers, as training would leave them."""
        settings = PlantedGraph(secret_share=0.01)
        for index, name in enumerate(self.reference.mask):
            layer = self.reference.layer_weights(name)
            mask = self.reference.mask.only([name])
            ticket = Ticket(
                mask=mask, weights={name: layer}, rewind_weights={name: layer}, info=TicketInfo(method="random")
            )
            start = Start(mask=mask, weights={name: layer})
            planned = settings.plan(ticket, start, self.binding, settings.parameters(ticket))
            marked = planned.start.mask[name]
            generator = np.random.default_rng((1, index))
            drawn = generator.standard_normal(marked.shape, dtype=np.float32)
            weights = np.where(layer != 0, layer, drawn)  # what was planted starts from weights of its own
            trained = CORRELATION * weights + CORRELATION * generator.standard_normal(marked.shape, dtype=np.float32)
            yield name, np.where(marked, trained, np.float32(0)).astype(np.float32)

    def innocents(self) -> Iterator[tuple[str, Layer]]:
        """Yield the layers of an unrelated network."""
        for index, name in enumerate(self.reference.mask):
            generator = np.random.default_rng((2, index))
            weights = generator.standard_normal((self.width, self.width), dtype=np.float32)
            yield name, np.where(generator.random(weights.shape, dtype=np.float32) < KEPT, weights, np.float32(0))

    def permuted(self) -> Iterator[tuple[str, Layer]]:
        """Yield the copy's layers with all hidden channels in another order."""
        before = np.arange(self.width)
        for index, (name, layer) in enumerate(self.copies()):
            last = index == self.layers - 1
            after = np.arange(self.width) if last else np.random.default_rng((3, index)).permutation(self.width)
            yield name, layer[after][:, before]
            before = after

    def write(self, kind: str) -> Path:
        """Write a suspect in half precision: "copy", "permuted" or "innocent"."""
        kinds: Mapping[str, Callable[[], Iterator[tuple[str, Layer]]]] = {
            "copy": self.copies,
            "permuted": self.permuted,
            "innocent": self.innocents,
        }
        path = self.folder / f"{kind}.safetensors"
        size = 2 * self.width**2
        header = {
            name: {"dtype": "F16", "shape": [self.width] * 2, "data_offsets": [index * size, (index + 1) * size]}
            for index, name in enumerate(self.reference.mask)
        }
        content = json.dumps(header).encode()
        with path.open("wb") as file:
            file.write(len(content).to_bytes(8, "little") + content)
            for _, layer in kinds[kind]():
                file.write(np.ascontiguousarray(layer, dtype=np.float16).tobytes())
        return path
