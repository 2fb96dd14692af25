"""Ordinary inputs for a questioning, from a data set of the verifier's."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from ticketguard.verification.controls import Controls, Task

if TYPE_CHECKING:
    from ticketguard.data import Dataset

# Enough to tell 25% from chance among ten classes; more would cost more queries than the triggers do.
ASKED = 100

ControlsLike: TypeAlias = "str | Dataset | tuple[npt.ArrayLike, npt.ArrayLike]"


def ordinary_inputs(given: ControlsLike, task: Task) -> Controls:
    """Return inputs as the claim says its model takes them, with their labels.

    Args:
        given: Inputs as the model takes them and labels; or a data set, by name, path, import path or itself, whose
            test examples are taken, evenly spaced, and normalised as the triggers are.
        task: As the claim has it.

    Raises:
        ConfigurationError: They do not fit the claim's task, or are too few to tell anything from chance.
        FileError: The data set cannot be read.
    """
    inputs, labels = given if isinstance(given, tuple) else _test_examples(given, task)
    return Controls.create(inputs, labels, task)


def _test_examples(data: str | Dataset, task: Task) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    import torch  # a verifier without a data set never pays for it

    from ticketguard.data import load_data
    from ticketguard.import_paths import is_import_path

    is_plane = len(task.input_shape) == 3 and task.input_shape[1] == task.input_shape[2]
    sized = is_plane and isinstance(data, str) and not is_import_path(data)
    loaded = load_data(data, options={"image_size": task.input_shape[1]} if sized else {})
    count = len(loaded.test_labels)
    chosen = torch.from_numpy(np.linspace(0, count - 1, min(ASKED, count)).round().astype(np.int64))
    pixels = loaded.test_inputs[chosen]
    scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return task.normalised(scaled.numpy()), loaded.test_labels[chosen].numpy()
