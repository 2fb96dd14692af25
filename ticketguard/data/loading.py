"""Data sets by name, by path, by import path, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ticketguard.data.dataset import DataOptions, Dataset
from ticketguard.data.image_folder import image_folder
from ticketguard.data.modular import modular_addition
from ticketguard.data.named import cifar10, cifar100, digits, fashion_mnist
from ticketguard.errors import ConfigurationError, TicketguardError
from ticketguard.import_paths import is_import_path, load_object
from ticketguard.settings import checked_options
from ticketguard.torchvision_shim import explanation

Loader: TypeAlias = Callable[[DataOptions], Dataset]

DATASETS: dict[str, Loader] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "modular-addition": modular_addition,
}


def load_data(data: str | Dataset | Callable[..., Dataset], *, options: Mapping[str, Any]) -> Dataset:
    """Load a data set.

    Args:
        data: A name, a folder or tar of class folders, an import path ``package.module:factory``, a factory, or the
            data set itself.
        options: Fields of `DataOptions`; for a factory of the user's own, its keyword arguments.

    Raises:
        ConfigurationError: There is no such data set, or it does not take these options.
        FileError: Its files are missing or damaged.
    """
    options = checked_options(options, what="data option")
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str) and data in DATASETS:
        return DATASETS[data](DataOptions.create(options))
    if isinstance(data, str) and not is_import_path(data):
        if not Path(data).exists():
            known = ", ".join(sorted(DATASETS))
            raise ConfigurationError(
                f"unknown data '{data}', expected one of {known}, a folder or tar of class folders, "
                "or package.module:factory"
            )
        return image_folder(Path(data), DataOptions.create(options))
    found = load_object(data) if isinstance(data, str) else data
    if callable(found) and not isinstance(found, Dataset):
        found = _call(found, options, data=str(data))
    if not isinstance(found, Dataset):
        raise ConfigurationError(f"data '{data}' gave a {type(found).__name__}, expected a ticketguard Dataset")
    return found


def _call(factory: Callable[..., object], options: Mapping[str, Any], *, data: str) -> object:
    """Call a factory of the user's own.

    Raises:
        ConfigurationError: It does not take these options, or raises something.
    """
    try:
        return factory(**options)
    except TypeError as error:
        raise ConfigurationError(f"data '{data}' does not take the options {sorted(options)}: {error}") from error
    # A factory is the user's own code: what it raises is not a bug of ours.
    except (Exception, SystemExit) as error:
        if isinstance(error, TicketguardError | MemoryError):
            raise
        if (told := explanation(error)) is not None:
            raise ConfigurationError(f"data '{data}' cannot be loaded: {told}") from error
        raise ConfigurationError(
            f"data '{data}' raised {type(error).__name__} ({error}): "
            f"call it with the options {sorted(options)} to see where"
        ) from error
