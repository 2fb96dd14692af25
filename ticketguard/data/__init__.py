"""Data sets by name, by path, or the user's own."""

from __future__ import annotations

from ticketguard.data.dataset import DataOptions, Dataset
from ticketguard.data.loading import DATASETS, load_data
from ticketguard.data.of_ticket import data_of

__all__ = ["DATASETS", "DataOptions", "Dataset", "data_of", "load_data"]
