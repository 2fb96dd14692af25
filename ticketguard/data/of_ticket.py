"""The data that a ticket was found with: the one place where what a ticket names as its data is loaded.

A ticket that was read from a file may be a stranger's. Only its names of `DATASETS` are used, read from where they
usually are; anything else needs the user's consent.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from ticketguard.data.dataset import Dataset
from ticketguard.data.loading import DATASETS, load_data
from ticketguard.errors import ConfigurationError, UntrustedNameError
from ticketguard.import_paths import is_import_path
from ticketguard.settings import checked_options
from ticketguard.ticket import Ticket

# Options of a file that are a place to read, with the command line's way to repeat them.
PLACES = {"folder": "--data-dir", "test_path": "--test-data"}
# Sixty thousand colour images take 3 GB at this size; a named data set's own are 32 pixels a side at most.
LARGEST_SIDE = 128


def data_of(
    ticket: Ticket,
    *,
    data: str | Dataset | Callable[..., Dataset] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Load the data that *ticket* was found with.

    Args:
        ticket: Says data and options.
        data: Takes the place of the ticket's data. Its options are then *options* alone, unless it repeats a path that
            the ticket names.
        options: Arguments of the data loader, or changes to those of the ticket.

    Raises:
        ConfigurationError: There is no such data set, or it does not take these options.
        UntrustedNameError: The ticket is from a file that names an import path, a folder or huge images, and neither
            *data* nor *options* repeat it.
        FileError: The data's files are missing or damaged.
    """
    info, given = ticket.info, checked_options(options, what="data option")
    repeated = isinstance(data, str) and data == info.data and data not in DATASETS
    if data is not None and not repeated:
        return load_data(data, options=given)
    found_with = dict(info.data_options)
    if info.from_file:
        if info.data not in DATASETS and not repeated:
            _refuse_path(info.data, {**found_with, **given})
        if not is_import_path(info.data):
            found_with = _harmless(found_with, given)
    return load_data(info.data, options={**found_with, **given})


def _refuse_path(name: str, options: Mapping[str, Any]) -> None:
    shown = reprlib.Repr()
    shown.maxdict, shown.maxstring, shown.maxother, shown.maxlevel = 12, 200, 60, 3
    what = f"code, data '{name}'" if is_import_path(name) else f"a place to read, data '{name}'"
    deed = f"imported and called with {shown.repr(dict(options))}" if is_import_path(name) else "read from this machine"
    raise UntrustedNameError(names=what, deed=deed, repeat=f"repeat it with --data {name} (data=...)")


def _harmless(found_with: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's data options that are not given anew, without leave to download.

    Raises:
        UntrustedNameError: They name a place to read, or huge images.
        ConfigurationError: They are not of an option's kind.
    """
    options = {name: value for name, value in found_with.items() if name not in given and name != "download"}
    for name, flag in PLACES.items():
        if options.get(name):
            raise UntrustedNameError(
                names=f"a place to read, data option '{name}' = {reprlib.repr(options[name])}",
                deed="read from this machine",
                repeat=f"repeat it with {flag} (data_options=...)",
            )
    for name, value in options.items():
        if type(value) is int and abs(value) >= 2**31:
            raise ConfigurationError(f"the ticket's data option '{name}' is {value!r}: its file is damaged or forged")
    side = options.get("image_size", 0)
    if type(side) is int and side > LARGEST_SIDE:
        raise UntrustedNameError(
            names=f"images of {side} pixels a side",
            deed=f"made though they have more than {LARGEST_SIDE}",
            repeat="repeat it with --image-size (data_options=...)",
        )
    return options
