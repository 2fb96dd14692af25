"""Claims and vaults that fit each other and were made to hang or exhaust whoever verifies them."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import ticketguard as tg
from ticketguard.credentials.canonical import canonical_json
from ticketguard.credentials.channel_groups import groups_digest
from ticketguard.credentials.claim import Claim, MarkClaim, sign_claim
from ticketguard.credentials.credential import GROUPS_PARAMETER
from ticketguard.credentials.vault import Vault, seal_vault
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.keyed import commit
from ticketguard.ticket import Mask, Reference

from .conftest import Run

PARAMETERS = {"secret_ppm": 50_000, "share_ppm": 50_000}
RECIPE = {"pattern": "two-tone-field", "count": 100, "classes": 10, "input_shape": [1, 8, 8], "grid": 4,
          "mean_ppm": [], "std_ppm": []}  # fmt: skip
SHAPE = (40, 60)

Forge = Callable[..., tuple[object, ...]]
Layers = Mapping[str, tuple[int, ...]]


def reference_of(shapes: Layers) -> Reference:
    """Make a reference that no release of ours need allow to be made."""
    generator = np.random.default_rng(0)
    mask = Mask(layers={name: generator.random(shape) < 0.5 for name, shape in shapes.items()})
    reference = Reference(mask=Mask(layers={}), kept_weights={})
    object.__setattr__(reference, "mask", mask)
    object.__setattr__(reference, "kept_weights", {name: np.ones(mask[name].sum(), np.float32) for name in mask})
    return reference


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """Write a claim and a vault that belong together, and return the arguments that name them."""

    def call(
        shapes: Layers,
        *,
        groups: Any = None,
        content: bytes | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> tuple[object, ...]:
        owner, key = tg.Owner.generate("Eve"), VaultKey.generate()
        reference = reference_of(shapes)
        scheme, parameters = ("planted-graph", dict(PARAMETERS)) if recipe is None else ("trigger-set", dict(recipe))
        if groups is not None:
            parameters[GROUPS_PARAMETER] = groups_digest(groups)
        level: dict[str, Any] = {"scheme": scheme, "version": 1, "level_bits": 64}
        commitment = commit(
            secret=bytes(32), owner_public_key=owner.public_key, reference_digest=reference.digest(),
            parameters=canonical_json(parameters), **level,
        )  # fmt: skip
        root = None if recipe is None else bytes(32)
        mark = MarkClaim(commitment=commitment, parameters=parameters, merkle_root=root, **level)
        claim = Claim(
            owner_name=owner.name, owner_public_key=owner.public_key, created="2026-01-31T12:00:00Z",
            mask_digest=bytes(32), weights_digest=hashlib.sha256().digest(), marks=(mark,),
        )  # fmt: skip
        vault = Vault(secret=bytes(32), reference=content or reference.to_bytes(), channel_groups=groups)
        (tmp_path / "claim.json").write_bytes(sign_claim(claim, owner))
        (tmp_path / "vault.age").write_bytes(seal_vault(vault, recipient=key.recipient))
        key.save(tmp_path / "vault.key")
        files = ("--claim", tmp_path / "claim.json", "--vault", tmp_path / "vault.age")
        return (*files, "--vault-key", tmp_path / "vault.key")

    return call


@pytest.fixture
def suspect(tmp_path: Path) -> Path:
    weights = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    weights[np.random.default_rng(2).random(SHAPE) < 0.5] = 0
    safetensors.numpy.save_file({"w": weights}, tmp_path / "suspect.safetensors")
    return tmp_path / "suspect.safetensors"


def test_a_plain_claim_is_judged(run: Run, forge: Forge, suspect: Path) -> None:
    groups = [[["w", 0, 1, 0, SHAPE[0]]], [["w", 1, 1, 0, SHAPE[1]]]]
    judged = run("verify", suspect, *forge({"w": SHAPE}, groups=groups), code=3).stdout
    assert judged.startswith("INCONCLUSIVE")
    assert "could not be aligned" in judged


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        # Laid out, the first would take gigabytes; each of the second's copies would be aligned anew.
        ([[["w", 0, 2**27, 0, 0]]], "a channel group's member is malformed"),
        ([[["w", 0, 1, 0, SHAPE[0]]]] * 120, "channel groups have position 0 of 'w' twice on axis 0"),
    ],
    ids=["a block and no channels", "the same 120 times"],
)
def test_groups_that_no_network_has_are_refused(
    run: Run, forge: Forge, suspect: Path, groups: Any, reason: str
) -> None:
    refused = run("verify", suspect, *forge({"w": SHAPE}, groups=groups), code=3)
    assert "the vault's channel groups are malformed" in refused.stderr
    assert reason in refused.stderr


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"a." * 20_000 + "w": SHAPE}, "has a name of 40001 characters and 20001 components"),
        (
            {"w": SHAPE, **{f"layer{index}": (1, 1) for index in range(10_000)}},
            "has 10001 layers, expected at most 10000",
        ),
    ],
    ids=["components", "layers"],
)
def test_a_reference_of_more_names_than_any_network_is_refused(
    run: Run, forge: Forge, suspect: Path, shapes: Layers, reason: str
) -> None:
    refused = run("verify", suspect, *forge(shapes), code=3)
    assert reason in refused.stderr
    assert len(refused.stderr) < 1000


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ("[true, true]", "has a mask of shape [True, True]"),
        (f"[{'1, ' * 69}1]", "has a mask of shape [1, 1,"),
        ("[" * 100_000 + "]" * 100_000, "has metadata that"),
    ],
    ids=["booleans", "70 axes", "nesting"],
)
def test_a_vault_whose_reference_is_malformed_is_refused(
    run: Run, forge: Forge, suspect: Path, shapes: str, reason: str
) -> None:
    metadata = f'{{"version": "ticketguard.reference/1", "mask_shapes": {{"w": {shapes}}}}}'
    tensors = {"ticketguard.mask/w": np.ones(1, np.uint8), "ticketguard.kept/w": np.ones(1, np.float32)}
    content = safetensors.numpy.save(tensors, metadata={"ticketguard": metadata})
    refused = run("verify", suspect, *forge({"w": SHAPE}, content=content), code=3)
    assert reason in refused.stderr
    assert "a bug" not in refused.stderr


def test_triggers_that_no_memory_should_hold_are_refused_before_one_is_drawn(
    run: Run, forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answers.py").write_text("def three(inputs):\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    credentials = forge({"w": SHAPE}, recipe={**RECIPE, "count": 8, "input_shape": [2**25]})

    def drawn(*_: object, **__: object) -> None:
        raise AssertionError("a trigger was drawn")

    with monkeypatch.context() as patch:
        patch.setattr("ticketguard.embedding.trigger_set.draw_triggers", drawn)
        refused = run("verify", "--predictor", "answers:three", *credentials, code=3)
    assert "trigger-set has parameters that cannot be used" in refused.stderr


def test_memory_is_for_one_trigger(tmp_path: Path) -> None:
    """A trigger of 1 MB, forty times."""
    shape, count = (1, 512, 512), 40
    layer = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    kept = Mask(layers={"w": layer > 0})
    info = tg.TicketInfo(method="random", classes=10, input_shape=shape)
    ticket = tg.Ticket(mask=kept, weights=kept.applied({"w": layer}), rewind_weights=None, info=info)
    plan = tg.prepare(ticket, owner=tg.Owner.generate("Ada"), marks=[tg.TriggerSet(count)], level_bits=32)
    vault, (mark,) = plan._vault, plan.claims
    claim = Claim(
        owner_name="Ada", owner_public_key=plan._owner.public_key, created="2026-01-31T12:00:00Z",
        mask_digest=bytes(32), weights_digest=bytes(32), marks=(mark,),
    )  # fmt: skip
    suspect = tg.CallablePredictor(lambda inputs: int(1000 * float(inputs.mean())) % 10)
    tracemalloc.start()
    try:
        verdict = tg.verify(suspect, tg.Credential(claim=claim, vault=vault), level_bits=32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verdict.evidence[0].details["queries"] == count
    assert peak < count * 2**20 / 2
