"""Objects of the user's own, named by import path: ``package.module:attribute``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

from ticketguard.errors import ConfigurationError
from ticketguard.torchvision_shim import explanation, import_torchvision

IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_import_path(text: str) -> bool:
    """Tell whether *text* has the form ``package.module:attribute``."""
    return IMPORT_PATH.fullmatch(text) is not None


def load_object(path: str) -> object:
    """Import the object that ``package.module:attribute`` names; modules in the current folder are found too.

    This runs code. What a file names goes through `ticketguard.models.model_of` and `ticketguard.data.data_of`, which
    ask whether the user has said so.

    Raises:
        ConfigurationError: The text has another form, there is no such module or attribute, or importing it fails.
    """
    if not is_import_path(path):
        raise ConfigurationError(f"'{path}' is not an import path, expected package.module:name")
    module_name, _, attributes = path.partition(":")
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)  # last, so that nothing that is installed is shadowed
    top, _, _ = module_name.partition(".")
    if top not in sys.modules:  # one that is there goes on to import from the folder it was found in
        _FINDER.allow(top, Path.cwd())
    try:
        found: object = (import_torchvision if top == "torchvision" else importlib.import_module)(module_name)
    except ImportError as error:
        _explain(error, path)
        raise ConfigurationError(
            f"module '{module_name}' of '{path}' cannot be imported ({error}): run from its folder or install it"
        ) from error
    # A user's module may raise anything, and may end the process: neither is a bug of ours, nor success.
    except (Exception, SystemExit) as error:
        _explain(error, path)
        raise ConfigurationError(
            f"module '{module_name}' of '{path}' raised {type(error).__name__} ({error}) when it was imported: "
            f"run 'python -m {module_name}' to see where"
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ConfigurationError(f"'{module_name}' has no '{attribute}', which '{path}' names: check its spelling")
        found = getattr(found, attribute)
    return found


def _explain(error: BaseException, path: str) -> None:
    """Raise what helps, where the installation and not the user's module is at fault.

    Raises:
        ConfigurationError: It is.
    """
    if (told := explanation(error)) is not None:
        raise ConfigurationError(f"'{path}' cannot be imported: {told}") from error


class _Finder:
    """Finds the user's modules in the folders they were named in: for the user's modules alone, and after all else.

    With the folder on ``sys.path`` every later import of the process would look there: a ``yaml.py`` in a folder that
    came from a stranger would be run by whatever package tries whether yaml is installed.
    """

    def __init__(self) -> None:
        self._folders: dict[str, Path] = {}

    def allow(self, name: str, folder: Path) -> None:
        """Let the top-level module *name*, which the user has named, be found in *folder*."""
        self._folders[name] = folder

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a top-level module that the user named, or that one of those found here imports."""
        folder = self._folders.get(name) or self._folders.get(_importer())
        if path is not None or folder is None:
            return None
        spec = PathFinder.find_spec(name, [str(folder)], target)
        if spec is not None:
            self._folders[name] = folder
        return spec


def _importer() -> str:
    """Return the top-level module whose code asks for an import."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if name != "importlib":  # its own frames lie between the code that asks and this
            return name
        frame = frame.f_back
    return ""


_FINDER = _Finder()
