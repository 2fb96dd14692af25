"""Ordinary inputs for a questioning, from a data set of whoever verifies."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.embedding.trigger_set import PARTS, TriggerRecipe
from ticketguard.verification.controls import Controls

if TYPE_CHECKING:
    from ticketguard.data import Dataset

# Enough to tell 25% from chance among ten classes; more would cost more queries than the triggers do.
ASKED = 100

ControlsLike: TypeAlias = "str | Dataset | tuple[npt.ArrayLike, npt.ArrayLike]"


def ordinary_inputs(given: ControlsLike, recipe: TriggerRecipe) -> Controls:
    """Return inputs as the claim says its model takes them, with their labels.

    Args:
        given: Inputs as the model takes them and labels; or a data set, by name, path, import path or itself, whose
            test examples are taken, evenly spaced, and normalised as the triggers are.
        recipe: Of the claim's triggers.

    Raises:
        ConfigurationError: They do not fit the claim's task, or are too few to tell anything from chance.
        FileError: The data set cannot be read.
    """
    inputs, labels = given if isinstance(given, tuple) else _test_examples(given, recipe)
    return Controls.create(inputs, labels, input_shape=recipe.input_shape, classes=recipe.classes)


def _test_examples(data: str | Dataset, recipe: TriggerRecipe) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    import torch  # a verifier without a data set never pays for it

    from ticketguard.data import load_data
    from ticketguard.plugins import is_import_path

    is_plane = len(recipe.input_shape) == 3 and recipe.input_shape[1] == recipe.input_shape[2]
    sized = is_plane and isinstance(data, str) and not is_import_path(data)
    loaded = load_data(data, options={"image_size": recipe.input_shape[1]} if sized else {})
    count = len(loaded.test_labels)
    chosen = torch.from_numpy(np.linspace(0, count - 1, min(ASKED, count)).round().astype(np.int64))
    pixels = loaded.test_inputs[chosen]
    scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return _normalised(scaled.numpy(), recipe), loaded.test_labels[chosen].numpy()


def _normalised(scaled: npt.NDArray[np.float32], recipe: TriggerRecipe) -> npt.NDArray[np.float32]:
    if not recipe.mean_ppm or scaled.shape[1:] != recipe.input_shape:
        return scaled  # another shape is refused by name where controls are made
    axes = (1, -1) + (1,) * (scaled.ndim - 2)
    mean, std = (
        (np.array(values) / PARTS).astype(np.float32).reshape(axes) for values in (recipe.mean_ppm, recipe.std_ppm)
    )
    return np.asarray((scaled - mean) / std, dtype=np.float32)
