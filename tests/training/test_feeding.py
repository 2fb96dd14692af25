from __future__ import annotations

import dataclasses
import threading

import pytest
import torch

from runs import stripes
from ticketguard.data import Dataset
from ticketguard.training import feeding
from ticketguard.training.feeding import Feeder, generator_for


def feeder(*, seed: int = 0, augment: bool = False, process: tuple[int, int] = (0, 1), batch_size: int = 16) -> Feeder:
    return Feeder(
        stripes(), batch_size=batch_size, seed=seed, augment=augment, device=torch.device("cpu"), process=process
    )


def rows(inputs: torch.Tensor) -> list[bytes]:
    return [row.contiguous().numpy().tobytes() for row in inputs]


def test_an_epoch_shows_each_example_at_most_once_and_epochs_differ() -> None:
    feed = feeder()
    assert feed.steps_per_epoch == 4  # 70 examples: the last 6 wait for another epoch's order
    epochs = [[row for step in range(4) for row in rows(feed.batch(4 * epoch + step)[0])] for epoch in range(2)]
    assert all(len(set(epoch)) == 64 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_any_step_can_be_replayed_in_any_order() -> None:
    first, second = feeder(augment=True), feeder(augment=True)
    forwards = [first.batch(step) for step in range(9)]
    for step in reversed(range(9)):
        inputs, labels = second.batch(step)
        assert torch.equal(inputs, forwards[step][0])
        assert torch.equal(labels, forwards[step][1])


@pytest.mark.parametrize("ahead", [1, 2000, 2**20])
@pytest.mark.parametrize("layout_bytes", [0, 2**30])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("padding", "flip"), [(1, True), (2, False), (0, True)])
def test_batches_prepared_ahead_are_those_of_one_image_after_the_other(
    padding: int, flip: bool, channels: int, layout_bytes: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream of draws and the arithmetic are fixed: a ticket can be found again with another release."""
    monkeypatch.setattr(feeding, "VALUES_AHEAD", ahead)
    monkeypatch.setattr(feeding, "LAYOUT_BYTES", layout_bytes)
    plain = stripes()
    data = dataclasses.replace(
        plain, train_inputs=plain.train_inputs.repeat(1, channels, 1, 1),
        test_inputs=plain.test_inputs.repeat(1, channels, 1, 1),
        mean=(0.4, 0.3, 0.2)[:channels], std=(0.25, 0.2, 0.3)[:channels], crop_padding=padding, flip=flip,
    )  # fmt: skip
    feed = Feeder(data, batch_size=16, seed=3, augment=True, device=torch.device("cpu"), process=(0, 1))
    for step in [*range(24), 2, 9]:
        inputs, labels = feed.batch(step)
        order = torch.randperm(70, generator=generator_for(3, 0, step // 4))[step % 4 * 16 :][:16]
        draws = generator_for(3, 1, step)
        tops, lefts = torch.randint(2 * padding + 1, (2, 16), generator=draws) if padding else torch.zeros(2, 16).long()
        mirrored = torch.rand(16, generator=draws) < 0.5 if flip else torch.zeros(16).bool()
        for place, example in enumerate(order.tolist()):
            padded = torch.nn.functional.pad(data.train_inputs[example], (padding,) * 4)
            image = padded[:, tops[place] :, lefts[place] :][:, :6, :6]
            image = image.flip(-1) if mirrored[place] else image
            mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
            assert torch.equal(inputs[place], (image.float() / 255 - mean) / std)
        assert torch.equal(labels, data.train_labels[order])
        assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_that_was_served_stays_as_it_was() -> None:
    feed = feeder(augment=True)
    served = [feed.batch(step) for step in range(12)]
    assert all(torch.equal(inputs, feeder(augment=True).batch(step)[0]) for step, (inputs, _) in enumerate(served))


def test_batches_asked_for_one_after_the_other_are_gathered_beside_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = set()

    class Noting(Dataset):
        def scaled(self, inputs: torch.Tensor) -> torch.Tensor:
            threads.add(threading.current_thread() is threading.main_thread())
            return super().scaled(inputs)

    monkeypatch.setattr(feeding, "LAYOUT_BYTES", 0)
    data = Noting(**vars(stripes()))
    feed = Feeder(data, batch_size=16, seed=0, augment=True, device=torch.device("cpu"), process=(0, 1))
    feed.batch(2)
    assert threads == {True}
    threads.clear()
    for step in range(3, 20):
        feed.batch(step)
    assert threads == {False}


def test_what_goes_wrong_beside_the_training_is_told_to_it() -> None:
    class Broken(Dataset):
        def scaled(self, inputs: torch.Tensor) -> torch.Tensor:
            raise MemoryError("no room")

    data = Broken(**vars(stripes()))
    feed = Feeder(data, batch_size=16, seed=0, augment=False, device=torch.device("cpu"), process=(0, 1))
    with pytest.raises(MemoryError, match="no room"):
        feed.batch(0)


def test_seeds_give_different_orders() -> None:
    assert not torch.equal(feeder(seed=0).batch(0)[0], feeder(seed=1).batch(0)[0])


def test_processes_share_the_same_batch() -> None:
    whole = feeder(augment=True).batch(3)
    shares = [feeder(augment=True, process=(index, 3)).batch(3) for index in range(3)]
    assert sorted(row for inputs, _ in shares for row in rows(inputs)) == sorted(rows(whole[0]))
    assert sum(len(labels) for _, labels in shares) == 16


def test_augmentation_shifts_and_mirrors_and_nothing_else() -> None:
    data = stripes()
    plain, augmented = feeder().batch(0)[0], feeder(augment=True).batch(0)[0]
    background = data.scaled(torch.zeros(1, 1, 6, 6, dtype=torch.uint8))
    changed = 0
    for before, after in zip(plain, augmented, strict=True):
        padded = torch.nn.functional.pad(before - background[0], (1, 1, 1, 1)) + background[0, 0, 0, 0]
        variants = [
            variant
            for top in range(3)
            for left in range(3)
            for shifted in [padded[:, top : top + 6, left : left + 6]]
            for variant in (shifted, shifted.flip(-1))
        ]
        assert any(torch.allclose(after, variant, atol=1e-6) for variant in variants)
        changed += not torch.equal(before, after)
    assert changed > 8


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    feed = feeder(batch_size=1000)
    assert (feed.steps_per_epoch, len(feed.batch(0)[1]), feed.steps(0.01)) == (1, 70, 1)


def test_fractions_of_an_epoch_are_whole_steps() -> None:
    assert [feeder().steps(epochs) for epochs in (0.5, 1, 2.25, 1 / 3)] == [2, 4, 9, 1]


def test_neighbouring_numbers_give_different_streams() -> None:
    seeds = {
        generator_for(seed, kind, step).initial_seed()
        for seed in range(-3, 30)
        for kind in range(3)
        for step in range(30)
    }
    assert len(seeds) == 33 * 3 * 30
