"""Objects of the user's own, named by import path: ``package.module:attribute``."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from ticketguard.errors import ConfigurationError

IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_import_path(text: str) -> bool:
    """Tell whether *text* has the form ``package.module:attribute``."""
    return IMPORT_PATH.fullmatch(text) is not None


def load_object(path: str) -> object:
    """Import the object that ``package.module:attribute`` names; modules in the current folder are found too.

    Raises:
        ConfigurationError: The text has another form, there is no such module or attribute, or importing it fails.
    """
    if not is_import_path(path):
        raise ConfigurationError(f"'{path}' is no import path, expected package.module:name")
    module_name, _, attributes = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(
            f"module '{module_name}' of '{path}' cannot be imported ({error}): run from its folder or install it"
        ) from error
    # A user's module may raise anything, and may end the process: neither is a bug of ours, nor success.
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"module '{module_name}' of '{path}' raised {type(error).__name__} ({error}) when it was imported: "
            f"run 'python -m {module_name}' to see where"
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ConfigurationError(f"'{module_name}' has no '{attribute}', which '{path}' names: check its spelling")
        found = getattr(found, attribute)
    return found
