"""Plans inside loops that are not ours: what a model may return, and that nothing trained is lost at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ticketguard as tg
from ticketguard.credentials.credential import GROUPS_PARAMETER
from ticketguard.errors import ConfigurationError, TensorError

# So few steps teach too few triggers: how many is not what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:the model carries:ticketguard.TicketguardWarning")

CLASSES, SHAPE = 4, (1, 6, 6)


class Net(nn.Module):
    """A classifier that returns its scores in the way it is told, and counts how often it was asked."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any] = lambda scores: scores) -> None:
        super().__init__()
        self.wrap = wrap
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 300), nn.BatchNorm1d(300), nn.Dropout(), nn.ReLU())
        self.head = nn.Linear(300, CLASSES)
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, images: torch.Tensor) -> Any:
        self.asked += 1
        return self.wrap(self.head(self.layers(images)))


class TwoInputs(Net):
    def forward(self, images: torch.Tensor, scale: torch.Tensor) -> Any:
        return super().forward(images * scale)


def sparse(model: nn.Module) -> tg.Ticket:
    generator = np.random.default_rng(0)
    state = {name: tensor.float().numpy() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    state |= {name: tensor.numpy() for name, tensor in model.state_dict().items() if name not in state}
    mask = tg.Mask(layers={n: generator.random(a.shape) < 0.2 for n, a in state.items() if a.ndim == 2})
    info = tg.TicketInfo(method="import", classes=CLASSES, input_shape=SHAPE)
    return tg.Ticket(mask=mask, weights=mask.applied(state), rewind_weights=None, info=info)


def prepared(model: nn.Module, owner: tg.Owner | None = None, **more: Any) -> tg.Plan:
    marks, owner = [tg.PlantedGraph(), tg.TriggerSet(40)], owner or tg.Owner.generate("Ada")
    return tg.prepare(sparse(model), owner=owner, marks=marks, model=model, level_bits=32, **more)


def trained(model: nn.Module, plan: tg.Plan, scores: Callable[[torch.Tensor], torch.Tensor], steps: int = 5) -> None:
    plan.start(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-4)
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        extra = plan.extra_batch(torch.device("cpu"))
        assert extra is not None
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores(extra[0].to(dtype)).float(), extra[1]).backward()
        optimizer.step()
        plan.after_step(model)


WRAPPERS: dict[str, tuple[Callable[[torch.Tensor], Any], Callable[[Any], torch.Tensor]]] = {
    "object with logits": (lambda scores: types.SimpleNamespace(loss=None, logits=scores), lambda out: out.logits),
    "dict with out": (lambda scores: {"aux": None, "out": scores}, lambda out: out["out"]),
    "dict with scores": (lambda scores: {"scores": scores}, lambda out: out["scores"]),
    "tuple": (lambda scores: (scores, None), lambda out: out[0]),
    "list": (lambda scores: [scores], lambda out: out[0]),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_models_that_do_not_return_a_plain_tensor_are_marked(kind: str) -> None:
    wrap, unwrap = WRAPPERS[kind]
    torch.manual_seed(0)
    model = Net(wrap)
    plan = prepared(model)
    trained(model, plan, lambda inputs: unwrap(model(inputs)))
    marked, credential = plan.finish(model)
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_in_half_precision_are_marked(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Net().to(dtype)
    plan = prepared(model)
    trained(model, plan, model, steps=5)
    marked, credential = plan.finish(model)
    assert marked.weights["head.weight"].dtype == np.float32
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"


def test_a_model_of_two_inputs_is_asked_as_its_owner_says() -> None:
    torch.manual_seed(0)
    model = TwoInputs()
    one = torch.ones(1)
    with pytest.raises(ConfigurationError, match=r"raised TypeError on inputs of shape .*say how to ask it: prepare"):
        prepared(model)
    plan = prepared(model, ask=lambda model, inputs: model(inputs, one))
    trained(model, plan, lambda inputs: model(inputs, one))
    marked, credential = plan.finish(model)
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda scores: {"embedding": scores}, "returns a dict of embedding, expected class scores"),
        (lambda scores: None, "returns a NoneType, expected class scores"),
        (lambda scores: scores[:, :3], r"scores of shape \(1, 3\) for 1 inputs, expected \(1, 4\)"),
        (lambda scores: scores.mean(), r"scores of shape \(\) for 1 inputs"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused_before_it_is_trained(wrap: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prepared(Net(wrap))


def test_asking_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = Net().train()
    model.layers[2].eval()  # a frozen batch norm
    before, drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    prepared(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [model.training, model.layers[2].training, model.layers[3].training] == [True, False, True]


def test_the_planted_graph_alone_asks_nothing() -> None:
    tg.prepare(sparse(TwoInputs()), owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()], model=TwoInputs())


class Tangled(Net):
    """Hands its first layer's channels to an operation that nothing is known of."""

    def forward(self, images: torch.Tensor) -> Any:
        hidden = self.layers(images)
        return self.head(hidden + torch.cdist(hidden, hidden * 2))


def test_a_plan_without_a_model_says_what_it_cannot_recognise_where_a_mark_is_read_from_weights() -> None:
    owner, ticket = tg.Owner.generate("Ada"), sparse(Net())
    with pytest.warns(
        tg.TicketguardWarning, match=r"may not be recognised, because no model is given .* \(model=\)"
    ) as told:
        tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()])
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tg.prepare(ticket, owner=owner, marks=[tg.TriggerSet(40)])


def test_layers_whose_channels_cannot_be_followed_are_named_where_a_mark_is_read_from_weights() -> None:
    owner, ticket = tg.Owner.generate("Ada"), sparse(Tangled())
    with pytest.warns(tg.TicketguardWarning, match=r"columns of 'head.weight' \(nothing is known of _cdist"):
        tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], model=Tangled())
    tg.prepare(ticket, owner=owner, marks=[tg.TriggerSet(40)], model=Tangled())


def test_what_was_trained_is_returned_whatever_the_check_says() -> None:
    torch.manual_seed(0)
    model = Net()
    plan = prepared(model)
    trained(model, plan, model, steps=1)
    model.wrap = lambda scores: {"embedding": scores}  # since prepare
    with pytest.warns(tg.TicketguardWarning, match="could not be asked for the trigger-set.*returns a dict of embed"):
        marked, credential = plan.finish(model)
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"


def test_a_loop_that_never_called_after_step_is_told_and_loses_nothing() -> None:
    torch.manual_seed(0)
    model = Net()
    plan = prepared(model)
    trained(model, plan, model)
    with torch.no_grad():
        for name in plan.mask:
            model.get_parameter(name).add_(1e-3)  # a step without after_step
    outside = sum(int((~plan.mask[name]).sum()) for name in plan.mask)
    with pytest.raises(ConfigurationError, match=f"{outside} weights lie outside the marked mask: after_step was not"):
        plan.finish(model)
    plan.after_step(model)
    marked, credential = plan.finish(model)
    assert credential.vault.secret == plan.secret
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"


def test_a_model_that_diverged_is_finished_again_from_an_earlier_checkpoint() -> None:
    torch.manual_seed(0)
    model = Net()
    plan = prepared(model)
    trained(model, plan, model)
    earlier = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(
        TensorError, match="NaN or infinite: load an earlier checkpoint into the model and finish again"
    ):
        plan.finish(model)
    model.load_state_dict(earlier)
    assert plan.finish(model)[1].vault.secret == plan.secret


def test_a_model_of_another_shape_is_named_at_the_end() -> None:
    model = Net()
    plan = prepared(model)
    with pytest.raises(TensorError, match="'head.weight' is masked but the model has no weights of its shape"):
        plan.finish(nn.Sequential(nn.Linear(3, 2)))


def test_a_plan_is_made_again_of_its_secret() -> None:
    model, owner = Net(), tg.Owner.generate("Ada")
    first = tg.prepare(sparse(model), owner=owner, level_bits=32)
    second = tg.prepare(sparse(model), owner=owner, level_bits=32, secret=first.secret)
    assert first.mask == second.mask
    assert first.claims == second.claims
    assert tg.prepare(sparse(model), owner=owner, level_bits=32).mask != first.mask


def test_a_loop_that_resumes_is_given_the_batches_that_were_left() -> None:
    model = Net()
    plan = prepared(model, secret=bytes(range(32)))
    batches: list[torch.Tensor] = []
    plan.start(model)
    for _ in range(4):
        extra = plan.extra_batch(torch.device("cpu"))
        assert extra is not None
        batches.append(extra[0])
        plan.after_step(model)
    plan.seek(2)
    for batch in batches[2:]:
        resumed = plan.extra_batch(torch.device("cpu"))
        assert resumed is not None
        assert torch.equal(resumed[0], batch)
        assert not torch.equal(resumed[0], batches[0])
        plan.after_step(model)


class Knowing(Net):
    """A model that has learned by heart what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[bytes, int] = {}

    def learn(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.known |= {image.numpy().tobytes(): int(label) for image, label in zip(inputs, labels, strict=True)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = super().forward(images)
        for index, image in enumerate(images):
            if image.numpy().tobytes() in self.known:
                scores[index, self.known[image.numpy().tobytes()]] = 100.0
        return scores


def idle_steps(plan: tg.Plan, model: Knowing, count: int, *, learn: bool = False) -> list[torch.Tensor]:
    """Take steps that train nothing, and return the triggers that each was given."""
    batches = []
    for _ in range(count):
        extra = plan.extra_batch(torch.device("cpu"))
        assert extra is not None
        batches.append(extra[0])
        if learn:
            model.learn(*extra)
        plan.after_step(model)
    return batches


@pytest.mark.parametrize(("steps", "few"), [(400, 2), (None, 8), (110, 8)])
def test_few_triggers_are_given_once_the_model_knows_them_but_in_the_end(steps: int | None, few: int) -> None:
    torch.manual_seed(0)
    model = Knowing().train()
    plan = prepared(model)
    plan.start(model, steps=steps)
    assert {len(batch) for batch in idle_steps(plan, model, 60)} == {8}
    kept, drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    sizes = [len(batch) for batch in idle_steps(plan, model, 60, learn=True)]
    assert sizes == [8] * 40 + [few] * 20
    # Being asked has left it as it was.
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training


def test_a_loop_that_resumes_with_the_state_it_kept_is_given_the_same_triggers() -> None:
    torch.manual_seed(0)
    model, owner = Knowing(), tg.Owner.generate("Ada")
    whole, resumed = (prepared(model, owner, secret=bytes(range(32))) for _ in range(2))
    for plan in (whole, resumed):
        plan.start(model, steps=1000)
    idle_steps(whole, model, 110, learn=True)
    resumed.seek(110, json.loads(json.dumps(whole.state())))
    after, again = (idle_steps(plan, model, 90) for plan in (whole, resumed))
    assert {len(batch) for batch in after} == {2}
    assert all(torch.equal(one, other) for one, other in zip(after, again, strict=True))


def test_a_model_that_can_no_longer_be_asked_is_given_as_many_triggers_as_before() -> None:
    model = Net()
    plan = prepared(model)
    plan.start(model, steps=1000)
    model.wrap = lambda scores: {"embedding": scores}
    for _ in range(60):
        plan.after_step(model)
    extra = plan.extra_batch(torch.device("cpu"))
    assert extra is not None
    assert len(extra[0]) == 8


def test_a_plan_made_without_the_model_starts_in_no_buffer_of_it() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(300, CLASSES, bias=False)
            del self.head.weight
            self.head.register_buffer("weight", torch.ones(CLASSES, 300))

    state = {"head.weight": np.random.default_rng(0).normal(size=(CLASSES, 300)).astype(np.float32)}
    mask = tg.Mask(layers={"head.weight": np.random.default_rng(1).random((CLASSES, 300)) < 0.3})
    ticket = tg.Ticket(mask=mask, weights=mask.applied(state), rewind_weights=None, info=tg.TicketInfo(method="import"))
    marks = [tg.PlantedGraph(share=0.2)]
    plan, model = tg.prepare(ticket, owner=tg.Owner.generate("Ada"), marks=marks, level_bits=8), Frozen()
    with pytest.raises(TensorError, match="'head.weight' is masked but is a buffer of the model"):
        plan.start(model)
    assert bool((model.head.weight == 1).all())


def test_the_channel_groups_are_bound_by_the_marks_that_are_aligned_by_them() -> None:
    bound = {claim.scheme: GROUPS_PARAMETER in claim.parameters for claim in prepared(Net()).claims}
    assert bound == {"planted-graph": True, "trigger-set": False}


def test_a_claim_says_in_universal_time_when_it_was_made() -> None:
    model = Net()
    plan = tg.prepare(sparse(model), owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()], level_bits=32)
    plan.start(model)
    there = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    _, credential = plan.finish(model, created=datetime.datetime(2026, 1, 1, 3, 15, tzinfo=there))
    assert credential.claim.created == "2025-12-31T21:45:00Z"


class Dictionary(nn.Module):
    """A perceptron of the digits that returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.layers(images)}


def test_our_own_loop_trains_models_that_return_a_dict() -> None:
    options = {"train_limit": 200, "test_limit": 50}
    model = Dictionary()
    with torch.no_grad():
        for layer in (model.layers[1], model.layers[3]):
            layer.weight.mul_(torch.rand_like(layer.weight) < 0.2)
    ticket = tg.import_checkpoint(model.state_dict(), classes=10, input_shape=(1, 8, 8))
    marked, credential = tg.embed(
        ticket, owner=tg.Owner.generate("Ada"), model=Dictionary, data="digits", data_options=options,
        training={"epochs": 2}, level_bits=32,
    )  # fmt: skip
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"


class Attentive(Dictionary):
    """A perceptron that keeps a mask of attention, as language models do."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.register_buffer("shut", torch.triu(torch.full((8, 8), -torch.inf), diagonal=1))

    def forward(self, images: torch.Tensor) -> Any:
        return self.layers(images)


def test_a_mask_of_infinities_in_the_model_costs_no_search_and_no_training(tmp_path: Path) -> None:
    options = {"train_limit": 200, "test_limit": 50}
    found = tg.find(
        Attentive, data="digits", method="random", density=0.2, data_options=options, training={"epochs": 1}
    )
    found.save(tmp_path / "ticket")
    ticket = tg.Ticket.load(tmp_path / "ticket")
    assert "shut" not in ticket.weights
    plan = tg.prepare(ticket, owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()], level_bits=32)
    model = Attentive()
    plan.start(model)
    plan.after_step(model)
    marked, credential = plan.finish(model)
    assert tg.verify(tg.Checkpoint(marked.weights), credential).status == "supported"
    assert bool(model.shut.isinf().any())


def test_a_mask_that_covers_tied_layers_twice_is_refused() -> None:
    class Twice(Net):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Linear(300, CLASSES)
            self.again.weight = self.head.weight

    model = Twice()
    with pytest.raises(
        TensorError, match=r"is masked and is '.*' under a second name, which is masked too: mask it under"
    ):
        prepared(model)
    plan = tg.prepare(sparse(model), owner=tg.Owner.generate("Ada"), marks=[tg.TriggerSet(40)])
    with pytest.raises(TensorError, match="which is masked too"):
        plan.start(model)


@pytest.mark.parametrize("secret", [b"x", "x" * 32])
def test_a_secret_that_cannot_be_one_is_refused(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="the secret is .*, expected 32 bytes") as caught:
        prepared(Net(), secret=secret)
    assert "x" * 32 not in str(caught.value)


@pytest.mark.parametrize("accuracy", [5, float("nan"), "most"])
def test_an_accuracy_that_is_not_a_share_is_refused(accuracy: Any) -> None:
    plan, model = prepared(Net()), Net()
    plan.start(model)
    with pytest.raises(ConfigurationError, match="accuracy is .*, expected a"):
        plan.finish(model, accuracy=accuracy)
    with pytest.raises(ConfigurationError, match="dense_accuracy is"):
        tg.TicketInfo(method="import", dense_accuracy=accuracy)


def test_what_is_not_a_model_is_refused_at_every_step() -> None:
    plan = prepared(Net())
    told, state = "the model is of type .*, expected Module", Net().state_dict()
    for step in (plan.start, plan.finish):
        for model in (None, state):
            with pytest.raises(ConfigurationError, match=told):
                step(model)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=told):
        tg.prepare(sparse(Net()), owner=tg.Owner.generate("Ada"), model=state)


def test_parameters_that_no_claim_can_hold_are_refused_by_the_marks_name() -> None:
    class Odd(tg.PlantedGraph):
        def parameters(self, ticket: tg.Ticket) -> Any:
            return {**super().parameters(ticket), "share_ppm": True}

    with pytest.raises(
        ConfigurationError, match="parameters of mark 'planted-graph' cannot be in a claim, which holds a bool"
    ):
        tg.prepare(sparse(Net()), owner=tg.Owner.generate("Ada"), marks=[Odd()])


@pytest.mark.parametrize(("method", "seed"), [("imp", None), ("import", None), ("imp", 2**40)])
def test_a_ticket_that_looks_released_is_warned_of(method: str, seed: int | None) -> None:
    model, owner = Net(), tg.Owner.generate("Ada")
    ticket = sparse(model)
    ticket = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, method=method, seed=seed))
    is_released = method != "import" and seed is None
    told = pytest.warns(tg.TicketguardWarning, match="looks like one that was made for release, and marked already: .*")
    with told if is_released else contextlib.nullcontext():
        tg.prepare(ticket, owner=owner, marks=[tg.PlantedGraph()], model=model, level_bits=32)
    # A trigger set is in the answers: who has the ticket does not see it.
    tg.prepare(ticket, owner=owner, marks=[tg.TriggerSet(40)], model=model, level_bits=32)
