"""Whatever mapping of options is given to a public verb: what is wrong in it is named by an error of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ticketguard as tg
from ticketguard.data import Dataset, load_data
from ticketguard.errors import ConfigurationError
from ticketguard.models import build_model, state_arrays
from ticketguard.settings import checked_options, plain_number, unknown_name
from ticketguard.ticket import Mask

KNOWN_FIELDS = "augment, batch_size, clip_norm, compile, device, epochs, gamma, learning_rate, milestones"
BAD_TRAINING: list[tuple[Any, str]] = [
    ({"epoch": 3}, f"unknown training option 'epoch', expected one of {KNOWN_FIELDS}, .*: did you mean 'epochs'\\?"),
    ({3: 3}, f"unknown training option '3', expected one of {KNOWN_FIELDS}"),
    ({"epochs": "3"}, "training: epochs is '3', expected a number"),
    ({"epochs": None}, "training: epochs is None, expected a number"),
    ({"milestones": 0.5}, "training: milestones is 0.5, expected a list of numbers"),
    ({"milestones": ["half"]}, "training: a milestone is 'half', expected a number"),
    ({"batch_size": 6.5}, "training: batch_size is 6.5, expected a whole number"),
    ({"batch_size": True}, "training: batch_size is True, expected a whole number"),
    ({"augment": "no"}, "training: augment is 'no', expected one of False, True"),
    ({"compile": 1}, "training: compile is 1, expected one of False, True"),
    ({"optimizer": ["sgd"]}, r"training: optimizer is \['sgd'\], expected one of sgd, adam, adamw"),
    ([1], r"training options are \[1\], expected names and values"),
    ("epochs=3", "training options are 'epochs=3', expected names and values"),
]
BAD_DATA_OPTIONS: list[tuple[Any, str]] = [
    ({"tran_limit": 3}, "unknown data option 'tran_limit', expected one of .*: did you mean 'train_limit'\\?"),
    ({"train_limit": 2.5}, "data option 'train_limit' is 2.5, expected a valid int"),
    ({"seed": 2**70}, "data option 'seed' is 1180591620717411303424, expected a valid int"),
    ({1: 1}, "unknown data option '1', expected one of|data option 1 has no name"),
    ([1], r"data options are \[1\], expected names and values"),
]
BAD_MODEL_OPTIONS: list[tuple[Any, str]] = [
    ({"width": 3}, r"does not take the options \['width'\]: .*; it takes classes, input_shape, widths"),
    ({"widths": "ab"}, "does not take the options"),
    ({1: 1}, "model option 1 has no name, expected a word"),
    ([1], r"model options are \[1\], expected names and values"),
]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", options={"train_limit": 100, "test_limit": 50})


@pytest.fixture(scope="module")
def ticket(digits: Dataset) -> tg.Ticket:
    options = {"classes": 10, "input_shape": [1, 8, 8], "widths": [8]}
    state = state_arrays(build_model("mlp", options=options, seed=0))
    layers = {name: np.abs(array) > np.median(np.abs(array)) for name, array in state.items() if array.ndim == 2}
    info = tg.TicketInfo(
        method="imp", model="mlp", model_options=options, data="digits", classes=10, input_shape=(1, 8, 8)
    )
    return tg.Ticket(mask=Mask(layers=layers), weights=state, rewind_weights=None, info=info)


@pytest.fixture(scope="module")
def verbs(digits: Dataset, ticket: tg.Ticket) -> dict[str, Callable[..., Any]]:
    owner = tg.Owner.generate("Ada")
    return {
        "find": lambda **given: tg.find("mlp", density=0.3, **{"data": "digits", **given}),
        "find_marked": lambda **given: tg.find_marked("mlp", owner=owner, density=0.3, data="digits", **given),
        "embed": lambda **given: tg.embed(ticket, owner=owner, **given),
        "check_ticket": lambda **given: tg.check_ticket(ticket, **given),
        "import_checkpoint": lambda **given: tg.import_checkpoint(
            {**ticket.weights, **{name: ticket.weights[name] * ticket.mask[name] for name in ticket.mask}},
            model="mlp", **{"data": "digits", "model_options": {"widths": [8]}, **given},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["find", "find_marked", "embed", "check_ticket", "import_checkpoint"])
@pytest.mark.parametrize(("training", "message"), BAD_TRAINING)
def test_changes_to_a_recipe_that_cannot_be_made_are_named(
    verbs: dict[str, Callable[..., Any]], verb: str, training: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        verbs[verb](training=training)


@pytest.mark.parametrize("verb", ["find", "find_marked", "embed", "check_ticket", "import_checkpoint"])
@pytest.mark.parametrize(("options", "message"), BAD_DATA_OPTIONS)
def test_data_options_that_cannot_be_used_are_named(
    verbs: dict[str, Callable[..., Any]], verb: str, options: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        verbs[verb](data_options=options)


@pytest.mark.parametrize(
    ("verb", "argument"),
    [
        ("find", "model_options"),
        ("find_marked", "model_options"),
        ("import_checkpoint", "model_options"),
        ("check_ticket", "dense_options"),
    ],
)
@pytest.mark.parametrize(("options", "message"), BAD_MODEL_OPTIONS)
def test_model_options_that_cannot_be_used_are_named(
    verbs: dict[str, Callable[..., Any]], verb: str, argument: str, options: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        verbs[verb](**{argument: options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune_fractio": 0.2}, "unknown method option 'prune_fractio', .*: did you mean 'prune_fraction'\\?"),
        ({"prune_fraction": "x"}, "method option 'prune_fraction' is 'x', expected a number"),
        ({1: 1}, "method option 1 has no name, expected a word"),
        ([1], r"method options are \[1\], expected names and values"),
    ],
)
def test_method_options_that_cannot_be_used_are_named(digits: Dataset, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tg.find("mlp", data=digits, density=0.3, training={"batch_size": 50}, method_options=options)


def test_a_control_of_something_that_is_no_file_name_is_refused(digits: Dataset) -> None:
    with pytest.raises(ConfigurationError, match="method option 'ticket' is 3, expected a word"):
        tg.find("mlp", data=digits, method="shuffled", training={"batch_size": 50}, method_options={"ticket": 3})


def test_a_factory_of_the_users_own_is_given_names(digits: Dataset) -> None:
    with pytest.raises(ConfigurationError, match="data option 2 has no name, expected a word"):
        tg.find("mlp", data=lambda **_: digits, density=0.3, data_options={2: 3})


@pytest.mark.parametrize(
    ("mark", "settings", "message"),
    [
        (tg.PlantedGraph, {"share": "a"}, "planted graph: share is 'a', expected a number"),
        (tg.PlantedGraph, {"share": None}, "planted graph: share is None, expected a number"),
        (tg.PlantedGraph, {"rate": True}, "planted graph: rate is True, expected a number"),
        (tg.PlantedGraph, {"secret_share": [1]}, r"planted graph: secret_share is \[1\], expected a number"),
        (tg.PlantedGraph, {"every_steps": 2.5}, "planted graph: every_steps is 2.5, expected a whole number"),
        (tg.TriggerSet, {"count": "a"}, "trigger set: count is 'a', expected a whole number"),
        (tg.TriggerSet, {"count": 2.5}, "trigger set: count is 2.5, expected a whole number"),
        (tg.TriggerSet, {"per_batch": "a"}, "trigger set: per_batch is 'a', expected a whole number"),
        (tg.TriggerSet, {"grid": True}, "trigger set: grid is True, expected a whole number"),
    ],
)
def test_settings_of_a_mark_that_are_of_another_kind_are_named(
    mark: Callable[..., Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        mark(**settings)


@pytest.mark.parametrize("mark", ["planted-graph", tg.PlantedGraph, 3])
def test_marks_that_are_none_are_named(ticket: tg.Ticket, mark: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"a mark is .*, expected one such as tg.PlantedGraph\(\)"):
        tg.prepare(ticket, owner=tg.Owner.generate("Ada"), marks=[mark])


def test_marks_that_are_no_list_are_named(ticket: tg.Ticket) -> None:
    with pytest.raises(ConfigurationError, match=r"marks are PlantedGraph.*, expected a list of them, such as \[tg"):
        tg.prepare(ticket, owner=tg.Owner.generate("Ada"), marks=tg.PlantedGraph())  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", [tg.embed, tg.prepare])
def test_a_ticket_or_owner_of_another_kind_is_named(ticket: tg.Ticket, verb: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"the ticket is of type str, expected Ticket: tg.Ticket.load"):
        verb("ticket.safetensors", owner=tg.Owner.generate("Ada"))
    with pytest.raises(ConfigurationError, match=r"the owner is of type str, expected Owner: tg.Owner.load"):
        verb(ticket, owner="Ada")


def test_a_suspect_or_credential_of_another_kind_is_named(ticket: tg.Ticket) -> None:
    with pytest.raises(ConfigurationError, match="the suspect is of type Ticket, expected a checkpoint or predictor"):
        tg.verify(ticket, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="the credential is of type str, expected Credential"):
        tg.verify(tg.Checkpoint(ticket.weights), "claim.json")  # type: ignore[arg-type]


def test_numbers_of_any_package_become_pythons_own() -> None:
    recipe = tg.TrainingConfig(epochs=np.float32(0.5), batch_size=np.int64(8), milestones=[np.float64(0.25)])  # type: ignore[arg-type]
    assert repr(recipe) == repr(tg.TrainingConfig(epochs=0.5, batch_size=8, milestones=(0.25,)))
    mark = tg.PlantedGraph(share=np.float64(0.25), every_steps=np.int32(5))  # type: ignore[arg-type]
    assert repr(mark) == repr(tg.PlantedGraph(share=0.25, every_steps=5))
    assert [type(plain_number(value, what="it")) for value in (3, 3.0, np.uint8(3))] == [int, float, int]


def test_no_options_are_an_empty_mapping_and_those_given_are_copied() -> None:
    given = {"a": 1}
    assert checked_options(None, what="option") == {}
    assert checked_options(given, what="option", known=["a"]) == given
    assert checked_options(given, what="option") is not given


def test_where_nothing_can_be_set_that_is_said() -> None:
    assert str(unknown_name("option", "x", [])) == "unknown option 'x', expected none: leave it out"


def test_a_name_far_from_all_others_is_not_guessed() -> None:
    assert str(unknown_name("option", "x", ["b", "a"])) == "unknown option 'x', expected one of a, b"
