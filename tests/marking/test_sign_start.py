"""Keyed signs for a training of one's own: one call before it, one after it."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ticketguard as tg
from tests.verification.claims import EVE
from ticketguard.embedding.keyed_signs import drawn_signs
from ticketguard.errors import ConfigurationError, TensorError, TicketguardError, TicketguardWarning
from ticketguard.graph import groups_from_json
from ticketguard.keyed import KeyedStream
from ticketguard.ticket import StartReference, TicketInfo, read_reference
from ticketguard.ticket.start_reference import PUBLIC_SALT

# The same for every run: what is drawn depends on the key.
OWNER = EVE
SECRET = bytes(range(32))
EXAMPLE = torch.zeros(2, 20)


def perceptron(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(20, 60), torch.nn.ReLU(), torch.nn.Linear(60, 10))


def signed(model: torch.nn.Module, **options: Any) -> tg.SignedStart:
    return tg.sign_start(model, **{"owner": OWNER, "example": EXAMPLE, "secret": SECRET, **options})


def train(model: torch.nn.Module, *, steps: int = 60, rate: float = 0.1, masked: bool = False) -> None:
    """The plain loop of somebody who has never heard of marks."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 20, generator=generator)
    labels = (inputs @ torch.randn(20, 10, generator=generator)).argmax(dim=1)
    masks = {name: parameter != 0 for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if masked:
            for name, parameter in model.named_parameters():
                parameter.data *= masks[name]


def prune(model: torch.nn.Module, density: float) -> None:
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    threshold = torch.cat([weight.abs().flatten() for weight in weights]).quantile(1 - density)
    for weight in weights:
        weight.data *= weight.abs() > threshold


def weights_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


# From the start to the verdict


def test_a_dense_network_is_signed_trained_finished_and_verified() -> None:
    model = perceptron()
    start = signed(model)
    train(model)
    before = weights_of(model)
    info = TicketInfo(method="own training", model="mine:build", seed=5)
    ticket, credential = start.finish(model, accuracy=0.9, info=info)
    assert (ticket.info.accuracy, ticket.info.model, ticket.rewind_weights) == (0.9, "mine:build", None)
    assert ticket.info.seed is None  # it is made for release
    assert ticket.mask.kept == ticket.mask.size == 1800
    assert all((ticket.weights[name] == array).all() for name, array in before.items())
    assert all((array == before[name]).all() for name, array in weights_of(model).items())
    (mark,) = credential.claim.marks
    assert (mark.scheme, mark.parameters["density_ppm"]) == ("keyed-signs", 1_000_000)
    assert (start.left_out, start.secret) == ({}, SECRET)
    verdict = tg.verify(tg.Checkpoint(ticket.weights), credential)
    assert (verdict.status, verdict.log10_p < -25) == ("supported", True)
    other = perceptron(seed=3)
    train(other)
    assert tg.verify(tg.Checkpoint(weights_of(other)), credential).status != "supported"


def test_a_network_that_is_pruned_on_the_way_is_verified() -> None:
    model = perceptron()
    start = signed(model, density=0.4)
    train(model)
    prune(model, 0.4)
    train(model, masked=True)
    ticket, credential = start.finish(model)
    assert ticket.mask.density == pytest.approx(0.4, abs=0.01)
    assert credential.mark("keyed-signs").parameters["density_ppm"] == 400_000
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "supported"


def test_the_models_channel_groups_are_bound_and_used() -> None:
    """Without them a copy with permuted channels is not recognised."""
    model = perceptron()
    start = signed(model)
    train(model)
    ticket, credential = start.finish(model)
    (group,) = groups_from_json(credential.vault.channel_groups)
    assert {"0.weight", "2.weight"} <= {member.tensor for member in group}
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).evidence[0].details["channel_groups"] == 1


def test_single_zeros_of_a_layer_are_not_pruned() -> None:
    """A tenth of a percent of zeros is chance or rounding; of a layer with one in a hundred the zeros are pruned."""
    model = perceptron()
    start = signed(model)
    weights = [dict(model.named_parameters())[name].data for name in ("0.weight", "2.weight")]
    weights[0].view(-1)[:1] = 0
    weights[1].view(-1)[:12] = 0
    ticket, _ = start.finish(model)
    assert ticket.mask["0.weight"].all()
    assert ticket.mask.count("2.weight") == 588


def test_a_credential_is_written_and_read_again(tmp_path: Any) -> None:
    model = perceptron()
    start = signed(model)
    train(model)
    ticket, credential = start.finish(model)
    key = tg.VaultKey.generate()
    credential.save(tmp_path / "claim", tmp_path / "vault", OWNER, recipient=key.recipient)
    read = tg.load_credential(tmp_path / "claim", tmp_path / "vault", vault_key=key)
    assert isinstance(read.reference, StartReference)
    assert tg.verify(tg.Checkpoint(ticket.weights), read) == tg.verify(tg.Checkpoint(ticket.weights), credential)


def test_another_network_from_the_same_start_is_warned_of() -> None:
    model, again = perceptron(), perceptron()
    start = signed(model)
    again.load_state_dict(model.state_dict())
    train(model)
    train(again, steps=50)
    start.finish(model)
    start.finish(model)
    with pytest.warns(TicketguardWarning, match="another network was finished from this start before: .* a new start"):
        _, credential = start.finish(again)
    # And rightly: both prove the same.
    for copy in (model, again):
        assert tg.verify(tg.Checkpoint(weights_of(copy)), credential).status == "supported"


def test_a_training_that_destroys_the_signs_is_warned_of() -> None:
    model = perceptron()
    start = signed(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    with pytest.warns(
        TicketguardWarning,
        match=r"the keyed-signs of this network show 10\^.*, and its claim needs 10\^-19.* as they are after sign_",
    ):
        ticket, credential = start.finish(model)
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status != "supported"


def test_a_model_that_was_not_trained_is_warned_of() -> None:
    model = perceptron()
    start = signed(model)
    with pytest.warns(TicketguardWarning, match="still has the start weights that sign_start gave it: train it first"):
        start.finish(model)
    model = perceptron()
    start = signed(model)
    train(model, steps=1)
    start.finish(model)


def test_a_signed_start_says_what_it_is_and_no_secret() -> None:
    start = signed(perceptron())
    assert repr(start) == "<SignedStart of 'Eve': keyed-signs in 1800 weights of 2 layers>"


# What is signed


def test_signs_change_no_magnitude_and_no_other_tensor() -> None:
    model = perceptron()
    before = weights_of(model)
    start = signed(model)
    after = weights_of(model)
    train(model)
    _, credential = start.finish(model)
    reference = read_reference(credential.vault.reference)
    assert isinstance(reference, StartReference)
    assert list(reference.layers) == ["0.weight", "2.weight"]
    binding = tg_binding(credential)
    for name, array in before.items():
        assert (np.abs(after[name]) == np.abs(array)).all()
        if name not in reference.layers:
            assert (after[name] == array).all()
            continue
        anchors = reference.anchors(name).reshape(array.shape)
        # The start's own signs are known to whoever guesses its seed: anchors have the reference's.
        kept = reference.layers[name].negative(array.size).reshape(array.shape)
        assert ((after[name] < 0) == kept)[anchors].all()
        assert 0.4 < (after[name] == array)[anchors].mean() < 0.6
        negative = drawn_signs(binding, name, array.size).reshape(array.shape)
        assert ((after[name] < 0) == negative)[~anchors].all()
        assert not (after[name] == array).all()


def tg_binding(credential: tg.Credential) -> Any:
    from ticketguard.embedding.interface import Binding

    return Binding(secret=credential.vault.secret, commitment=credential.commitment("keyed-signs"))


def test_which_signs_are_drawn_is_secret() -> None:
    starts = []
    for secret in (SECRET, bytes(32)):
        start = signed(model := perceptron(), secret=secret)
        train(model, steps=1)
        _, credential = start.finish(model)
        starts.append(read_reference(credential.vault.reference))
    one, other = starts
    assert isinstance(one, StartReference)
    assert isinstance(other, StartReference)
    assert PUBLIC_SALT not in (one.salt, other.salt)
    # As the page says, so that an interrupted run draws it again.
    assert one.salt == KeyedStream(secret=SECRET, commitment=bytes(32), label="anchors").bytes(32)
    same = one.anchors("0.weight") == other.anchors("0.weight")
    assert 0.4 < same.mean() < 0.75


def test_the_same_secret_and_start_give_the_same_signs() -> None:
    first, again, other = perceptron(), perceptron(), perceptron()
    signed(first)
    signed(again, secret=SECRET)
    start = signed(other, secret=None)
    assert all((weights_of(again)[name] == array).all() for name, array in weights_of(first).items())
    assert any((weights_of(other)[name] != array).any() for name, array in weights_of(first).items())
    resumed = perceptron()
    signed(resumed, secret=start.secret)
    assert all((weights_of(resumed)[name] == array).all() for name, array in weights_of(other).items())
    # Signed once more, a start is the same start: its votes' signs are not bound.
    signed(first)
    assert all((weights_of(again)[name] == array).all() for name, array in weights_of(first).items())


def test_a_head_that_starts_at_zero_is_left_out_by_name() -> None:
    model = perceptron()
    torch.nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    with pytest.warns(
        TicketguardWarning, match="1 layers carry no keyed signs: '2.weight' has 600 of 600 start weights"
    ):
        start = signed(model)
    assert list(start.left_out) == ["2.weight"]
    train(model)
    ticket, credential = start.finish(model)
    found = tg.verify(tg.Checkpoint(ticket.weights), credential).evidence[0]
    assert (found.status, found.details["layers"]) == ("supported", 2)


def test_many_layers_that_are_left_out_are_counted() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(20, 4), *(torch.nn.Linear(4, 4) for _ in range(5)))
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and name != "0.weight":
            torch.nn.init.eye_(parameter)
    with pytest.warns(TicketguardWarning, match="5 layers carry no keyed signs: '1.weight' .*; and 2 more$"):
        start = signed(model)
    assert list(start.left_out) == [f"{number}.weight" for number in range(1, 6)]


def test_layers_are_those_that_are_named() -> None:
    model = perceptron()
    start = signed(model, layers=["0.weight"])
    train(model)
    ticket, credential = start.finish(model)
    assert list(ticket.mask) == ["0.weight"]
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "supported"


def test_layers_that_are_added_after_the_start_are_not_signed() -> None:
    model = perceptron()
    start = signed(model)
    train(model)
    model.append(torch.nn.Linear(10, 30))
    ticket, credential = start.finish(model)
    assert list(ticket.mask) == ["0.weight", "2.weight"]
    assert "3.weight" in ticket.weights
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "supported"


# What is refused


def test_layers_that_are_not_the_models_are_refused() -> None:
    with pytest.raises(TensorError, match="'9.weight' is not in the model: name layers as its state dict does"):
        signed(perceptron(), layers=["9.weight"])
    with pytest.raises(ConfigurationError, match="layers are '0.weight', expected a list of state-dict names"):
        signed(perceptron(), layers="0.weight")


def test_a_model_that_lost_a_signed_layer_is_refused() -> None:
    model = perceptron()
    start = signed(model)
    with pytest.raises(TensorError, match="'2.weight' is masked but the model has no weights of its shape"):
        start.finish(model[:2])
    with torch.no_grad():
        next(model.parameters())[0, 0] = torch.nan
    with pytest.raises(TensorError, match="'0.weight' has values that are NaN or infinite"):
        start.finish(model)


def test_a_model_that_was_trained_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(20, 60), torch.nn.BatchNorm1d(60), torch.nn.Linear(60, 10))
    signed(model)
    model(torch.randn(8, 20))
    before = weights_of(model)
    with pytest.raises(ConfigurationError, match="was trained already: '1.num_batches_tracked' is 1: sign_start comes"):
        signed(model)
    assert all((array == before[name]).all() for name, array in weights_of(model).items())


def test_a_start_that_is_not_random_is_refused() -> None:
    model = perceptron()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    with pytest.raises(
        ConfigurationError, match="cannot carry keyed signs: layer '0.weight' has 1200 of 1200 start weights"
    ):
        signed(model)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    torch.nn.init.orthogonal_(next(model.parameters()))
    with pytest.raises(
        ConfigurationError, match="as those of a trained or an orthogonal layer do, and such layers hold"
    ):
        tg.sign_start(model, owner=OWNER)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(ConfigurationError, match="'0.weight' is empty or has values that are NaN or infinite"):
        tg.sign_start(model, owner=OWNER)


def test_marks_that_are_not_in_start_weights_are_refused() -> None:
    for mark in (tg.PlantedGraph(), tg.TriggerSet()):
        with pytest.raises(
            ConfigurationError, match=f"mark '{mark.scheme}' is not in start weights, expected keyed-signs"
        ):
            signed(perceptron(), marks=[mark])
    with pytest.raises(ConfigurationError, match="marks are .*, expected at least one"):
        signed(perceptron(), marks=[])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"density": 0.0}, "density is 0, expected above 0 and at most 1"),
        ({"density": 1.5}, r"density is 1\.5, expected above 0"),
        ({"density": "x"}, "density"),
        ({"level_bits": 0}, "level"),
        ({"owner": "Ada"}, "the owner"),
        ({"secret": b"x"}, "the secret is 1 bytes, expected 32 bytes"),
        ({"secret": "x" * 32}, "the secret is of type str, expected 32 bytes"),
        ({"layers": []}, "layers are an empty list: name some, or leave layers= out"),
        ({"layers": [1]}, "layers hold 1, expected state-dict names"),
        ({"layers": 1}, "layers are 1, expected a list"),
        ({"layers": "0.weight"}, "layers are '0.weight', expected a list"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], told: str) -> None:
    model = perceptron()
    before = weights_of(model)
    with pytest.raises(ConfigurationError, match=told):
        signed(model, **options)
    assert all((array == before[name]).all() for name, array in weights_of(model).items())


def test_a_model_without_weights_of_two_axes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no weights with two or more axes to sign: name them with layers="):
        tg.sign_start(torch.nn.Sequential(torch.nn.BatchNorm1d(5)), owner=OWNER)


def test_an_embedding_is_not_signed_unless_it_is_named() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.head = torch.nn.Embedding(40, 30), torch.nn.Linear(30, 20)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.head(self.table(tokens))
            return answer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TicketguardWarning)
        start = tg.sign_start(Model(), owner=OWNER)
        named = tg.sign_start(Model(), owner=OWNER, layers=["table.weight", "head.weight"])
    assert list(start._marks.reference.layers) == ["head.weight"]
    assert list(named._marks.reference.layers) == ["head.weight", "table.weight"]


def test_unknown_channel_groups_are_warned_of_in_its_own_words() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(20, 60)

        def forward(self, inputs: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.first(inputs) * scale
            return answer

    with pytest.warns(TicketguardWarning, match="sign_start takes it as example=, or how to ask the model as ask=$"):
        tg.sign_start(Odd(), owner=OWNER)


# Tied layers


class Tied(torch.nn.Sequential):
    """The third layer has the weight of the first one."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [torch.nn.Linear(40, 40), torch.nn.ReLU(), torch.nn.Linear(40, 40), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(40, 40))
        self[2].weight = self[0].weight


def test_tied_layers_carry_their_signs_and_are_bound_once() -> None:
    model = Tied()
    start = signed(model, example=torch.zeros(2, 40))
    assert start.left_out == {"2.weight": "is '0.weight' under a second name"}
    assert list(start._marks.reference.layers) == ["0.weight", "4.weight"]
    state = weights_of(model)
    assert all(np.array_equal(state[name], start._marks.weights[name]) for name in ("0.weight", "4.weight"))
    with pytest.warns(TicketguardWarning, match="train it first"):
        ticket, credential = start.finish(model)
    verdict = tg.verify(tg.Checkpoint(ticket.weights), credential)
    assert verdict.evidence[0].observed == verdict.evidence[0].details["votes"]
    for name in ("0.weight", "2.weight"):
        alone = {key: value for key, value in ticket.weights.items() if key != name}
        assert tg.verify(tg.Checkpoint(alone), credential).status == "supported"


@pytest.mark.parametrize("layers", [["0.weight", "2.weight", "4.weight"], ["2.weight", "4.weight"]])
def test_a_second_name_of_a_layer_is_refused(layers: list[str]) -> None:
    model = Tied()
    before = weights_of(model)
    with pytest.raises(TensorError, match=r"'2\.weight' is '0\.weight' under a second name: name '0\.weight' alone"):
        signed(model, layers=layers)
    assert all((array == before[name]).all() for name, array in weights_of(model).items())


def test_layers_in_the_same_memory_are_refused_and_keep_their_weights() -> None:
    model = Tied()
    model[2].weight = torch.nn.Parameter(model[0].weight.detach())
    before = weights_of(model)
    with pytest.raises(
        TensorError, match="does not keep its signs: another tensor of the model lies in the same memory"
    ):
        signed(model, example=torch.zeros(2, 40))
    assert all((array == before[name]).all() for name, array in weights_of(model).items())


# A model that is signed again


def test_a_start_that_is_signed_over_is_warned_of() -> None:
    model = perceptron()
    first = signed(model)
    train(model, steps=20)
    with pytest.warns(TicketguardWarning, match="this model was signed before, and gets other signs now"):
        signed(torch.nn.DataParallel(model), secret=bytes(32))
    with pytest.warns(TicketguardWarning, match="too many signs were turned"):
        first.finish(model)


def test_the_same_secret_or_other_start_weights_are_not_warned_of() -> None:
    model = perceptron()
    signed(model)
    before = weights_of(model)
    signed(model)
    assert all((array == before[name]).all() for name, array in weights_of(model).items())
    for layer in (model[0], model[2]):
        layer.reset_parameters()  # type: ignore[operator]
    signed(model, secret=bytes(32))
    signed(perceptron(), secret=bytes(range(1, 33)))


def test_nothing_keeps_a_signed_model_alive() -> None:
    model = perceptron()
    signed(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


# What is no model, or not one of plain numbers


def parameter_made(change: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    model = perceptron()
    model[2].weight = torch.nn.Parameter(change(model[2].weight.detach()), requires_grad=False)
    return model


def quantised(model: torch.nn.Module | None = None) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: torch.nn.Module = torch.ao.quantization.quantize_dynamic(model or perceptron(), {torch.nn.Linear})
        return made


UNREADABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: None, "the model is of type NoneType, expected Module"),
    "state dict": (
        lambda: perceptron().state_dict(),
        "the model is of type OrderedDict, expected Module: give the torch.nn",
    ),
    "meta": (lambda: perceptron().to("meta"), r"'0\.weight' is on the meta device and has no values"),
    "lazy": (lambda: torch.nn.Sequential(torch.nn.LazyLinear(5)), "has no shape yet: run the model on a batch first"),
    "quantised": (quantised, "expected a tensor: a quantised model is not read: give the network as it was"),
    "quantised tensor": (
        lambda: parameter_made(lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)),
        r"'2\.weight' is quantised",
    ),
    "sparse": (lambda: parameter_made(torch.Tensor.to_sparse), r"stored as torch\.sparse_coo: make it dense"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_refused_before_and_after_training(kind: str) -> None:
    make, told = UNREADABLE[kind]
    with pytest.raises(TicketguardError, match=told):
        tg.sign_start(make(), owner=OWNER)
    start = signed(perceptron())
    with pytest.raises(TicketguardError, match=told):
        start.finish(make())


@pytest.mark.filterwarnings("ignore")
def test_an_expanded_parameter_is_refused_before_anything_is_written() -> None:
    model = parameter_made(lambda weight: weight[:1].expand_as(weight))
    before = weights_of(model)
    with pytest.raises(TensorError, match=r"'2\.weight' is expanded: several of its values lie in one place: copy it"):
        signed(model)
    assert all((array == before[name]).all() for name, array in weights_of(model).items())


@pytest.mark.filterwarnings("ignore")
def test_complex_layers_are_left_out_by_name_or_refused() -> None:
    model = parameter_made(lambda weight: weight.to(torch.complex64))
    told = "has type complex64, whose values have no sign to draw"
    assert tg.sign_start(model, owner=OWNER).left_out["2.weight"] == told
    with pytest.raises(TensorError, match=f"'2.weight' {told}: leave it out"):
        tg.sign_start(model, owner=OWNER, layers=["2.weight"])
    with pytest.raises(ConfigurationError, match=f"no weights with two or more axes to sign: .*'0.weight' {told}"):
        tg.sign_start(perceptron().to(torch.complex64), owner=OWNER)
    with pytest.raises(
        TensorError, match="has type complex64, expected a floating-point type: give the model as it was"
    ):
        signed(perceptron()).finish(perceptron().to(torch.complex64))


@pytest.mark.filterwarnings("ignore")
def test_layers_without_elements_are_left_out_by_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.nn.Sequential(torch.nn.Linear(20, 0), torch.nn.Linear(0, 20), torch.nn.Linear(20, 20))
        start = signed(model)
    assert start.left_out == dict.fromkeys(["0.weight", "1.weight"], "has no elements")
    assert start.finish(model)[0].mask.kept == 400


@pytest.mark.filterwarnings("ignore")
def test_eight_bits_are_enough_for_a_sign() -> None:
    model = perceptron()
    model[0].weight.data *= 16  # or a few are too small for it
    model[2].weight.data *= 16
    model = model.to(torch.float8_e4m3fn)
    start = tg.sign_start(model, owner=OWNER)
    ticket, credential = start.finish(model)
    assert tg.verify(tg.Checkpoint(ticket.weights), credential).status == "supported"


def test_a_name_that_no_file_can_hold_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(20, 60))
    model.add_module("\ud800", torch.nn.Linear(60, 10))
    with pytest.raises(TensorError, match=r"tensor '\\ud800\.weight' has a name that is not text in UTF-8: rename it"):
        signed(model)


@pytest.mark.parametrize("accuracy", [5, -0.1, float("nan"), float("inf"), "0.9", True])
def test_an_accuracy_that_is_not_a_share_is_refused(accuracy: Any) -> None:
    model = perceptron()
    start = signed(model)
    train(model, steps=1)
    with pytest.raises(ConfigurationError, match="accuracy is .*, expected a"):
        start.finish(model, accuracy=accuracy)
    assert start.finish(model, accuracy=np.float32(0.5))[0].info.accuracy == 0.5  # type: ignore[arg-type]
