"""What `find` and `find_marked` are asked for is typed, and whoever misspells an argument is told of which call."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

import ticketguard as tg
from ticketguard.pipeline.request import SearchRequest
from ticketguard.pipeline.runs import RunOptions

OF_MARKS = {"owner", "marks", "level_bits", "secret", "rescale"}


@pytest.mark.parametrize("verb", ["find", "find_marked"])
def test_a_misspelt_argument_names_the_verb_that_was_called(verb: str) -> None:
    given: dict[str, Any] = {"dat": "digits", "density": 0.2, "owner": None}
    with pytest.raises(TypeError, match=rf"^{verb}\(\) got an unexpected keyword argument 'dat'"):
        getattr(tg, verb)("mlp", **{name: value for name, value in given.items() if verb != "find" or name != "owner"})


def test_both_verbs_take_what_a_search_can_be_asked_for() -> None:
    fields = {field.name for field in dataclasses.fields(SearchRequest)} - {"run"}
    run = {field.name for field in dataclasses.fields(RunOptions)}
    assert set(inspect.signature(tg.find).parameters) == fields | run
    assert set(inspect.signature(tg.find_marked).parameters) == fields | run | OF_MARKS


def test_both_verbs_have_the_same_defaults() -> None:
    find, marked = (inspect.signature(verb).parameters for verb in (tg.find, tg.find_marked))
    for name in set(find) - {"density"}:
        assert find[name].default == marked[name].default
        assert find[name].annotation == marked[name].annotation
