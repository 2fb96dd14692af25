"""What verification and credentials pass around are frozen values whose fields are named when they are made."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

import ticketguard.credentials
import ticketguard.verification

VALUES = sorted(
    {
        value
        for package in (ticketguard.verification, ticketguard.credentials)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for value in vars(importlib.import_module(module.name)).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type) and value.__module__ == module.name
    },
    key=lambda value: value.__qualname__,
)


@pytest.mark.parametrize("value", VALUES)
def test_values_are_frozen_and_their_fields_named(value: type) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.__setattr__(object.__new__(value), dataclasses.fields(value)[0].name, None)
    assert all(field.kw_only for field in dataclasses.fields(value))


def test_there_are_values_to_look_at() -> None:
    assert {"Evidence", "Verdict", "LayerCount", "Claim", "Vault"} <= {value.__name__ for value in VALUES}
