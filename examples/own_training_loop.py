"""Mark a sparse model of your own inside your own training loop.

The model below is none of ticketguard's, the mask was found elsewhere (here: one-shot magnitude pruning in a few
lines), and the loop is plain PyTorch. Three calls embed the marks: `start`, `after_step`, `finish`.

Run it: python examples/own_training_loop.py
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from torch import nn

import ticketguard as tg

BATCH_SIZE = 64


class TwoBranches(nn.Module):
    """A small convolutional net with two branches that are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Linear(64 * 16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, 10)."""
        both = torch.cat([self.fine(images), self.coarse(images)], dim=1)
        logits: torch.Tensor = self.head(self.mix(both).flatten(1))
        return logits


def load() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return training and test images, scaled to [0, 1], and labels."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    return images[:1400], labels[:1400], images[1400:], labels[1400:]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, epochs: int, plan: tg.Plan | None) -> None:
    """Train in a plain loop; with a plan, the marks are embedded on the way."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(BATCH_SIZE):
            batch, targets = images[chosen], labels[chosen]
            if plan is not None and (extra := plan.extra_batch(torch.device("cpu"))) is not None:
                batch, targets = torch.cat([batch, extra[0]]), torch.cat([targets, extra[1]])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), targets).backward()
            optimizer.step()
            if plan is not None:
                plan.after_step(model)


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of *images* that *model* labels right."""
    model.eval()
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).float().mean())


def prune_by_magnitude(model: nn.Module, density: float) -> None:
    """Zero the smallest weights of every layer: the sparse checkpoint that was found elsewhere."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                keep = round(density * parameter.numel())
                threshold = parameter.abs().flatten().sort(descending=True).values[keep - 1]
                parameter.mul_(parameter.abs() >= threshold)


def main() -> None:
    """Find elsewhere, import, embed in a loop of one's own, verify by weights and by answers."""
    # No seed is set: whoever knew it would find the same ticket, and see in it what the mark moved.
    train_images, train_labels, test_images, test_labels = load()
    model = TwoBranches()
    train(model, train_images, train_labels, epochs=8, plan=None)
    prune_by_magnitude(model, density=0.2)

    # The zeros of the checkpoint are the mask; classes and input shape let triggers be made.
    ticket = tg.import_checkpoint(model.state_dict(), classes=10, input_shape=(1, 8, 8))
    plan = tg.prepare(ticket, owner=tg.Owner.generate("Ada"), model=model)
    plan.start(model, steps=25 * len(range(0, len(train_labels), BATCH_SIZE)))
    train(model, train_images, train_labels, epochs=25, plan=plan)
    marked, credential = plan.finish(model)
    # The ticket is what is released: it computes the same, with weights that fine-tuning moves less.
    model.load_state_dict({name: torch.from_numpy(array) for name, array in marked.weights.items()})
    print(f"density {marked.mask.density:.3f}, test accuracy {accuracy(model, test_images, test_labels):.3f}")

    @torch.no_grad()
    def answer(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = model(torch.from_numpy(inputs)).numpy()
        return logits

    by_weights = tg.verify(tg.Checkpoint(model.state_dict()), credential)
    by_answers = tg.verify(tg.CallablePredictor(answer), credential)
    stranger = tg.verify(tg.Checkpoint(TwoBranches().state_dict()), credential)
    print(f"the marked model's weights: {by_weights.status}, p = 10^{by_weights.log10_p:.0f}")
    print(f"the marked model's answers: {by_answers.status}, p = 10^{by_answers.log10_p:.0f}")
    print(f"a stranger's weights: {stranger.status}")


if __name__ == "__main__":
    main()
