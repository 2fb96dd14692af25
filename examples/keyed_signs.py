"""Sign the start of a training of your own: nothing is planted, nothing is lost, and the model need not be sparse.

One call before training and one after it; then ticket, claim and vault are saved, here into the folder "signed". A
dense convolutional net is trained in a plain PyTorch loop; a thief prunes four fifths of its weights, and a stranger
trains the same architecture.

Run it: python examples/keyed_signs.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import ticketguard as tg


def build() -> nn.Sequential:
    """Return a small convolutional net, initialised at random."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 16, 10)),
    )


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, epochs: int) -> None:
    """Train in a plain loop that knows nothing of ticketguard."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()


def pruned(model: nn.Module, share: float) -> dict[str, torch.Tensor]:
    """Return the state dict with the smallest weights of every layer set to zero."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for tensor in state.values():
        if tensor.ndim > 1:
            threshold = tensor.abs().flatten().quantile(share)
            tensor[tensor.abs() < threshold] = 0
    return state


def save(ticket: tg.Ticket, credential: tg.Credential, owner: tg.Owner, folder: Path) -> None:
    """Write what is left of it: ticket and claim are for others, vault, passphrase and key for the owner alone."""
    folder.mkdir(exist_ok=True)
    passphrase = "choose your own"  # noqa: S105
    owner.save(folder / "owner.key", passphrase)
    credential.save(folder / "claim.json", folder / "vault.age", owner, passphrase)
    ticket.save(folder / "marked.safetensors", release=True)


def main() -> None:
    """Sign, train, finish, save, steal, verify."""
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    owner = tg.Owner.generate("Ada")
    model = build()
    start = tg.sign_start(model, owner=owner, example=images[:1])
    train(model, images[:1400], labels[:1400], epochs=8)
    model.eval()
    accuracy = float((model(images[1400:]).argmax(dim=1) == labels[1400:]).float().mean())
    ticket, credential = start.finish(model, accuracy=accuracy)
    print(f"test accuracy {accuracy:.3f}")
    save(ticket, credential, owner, Path("signed"))

    copy = tg.verify(tg.Checkpoint(ticket.weights), credential)
    print(f"the model's weights: {copy.status}, p = 10^{copy.log10_p:.0f}")
    thief = tg.verify(tg.Checkpoint(pruned(model, 0.8)), credential)
    print(f"a thief's weights: {thief.status}, p = 10^{thief.log10_p:.0f}")
    other = build()
    train(other, images[:1400], labels[:1400], epochs=8)
    stranger = tg.verify(tg.Checkpoint(other.state_dict()), credential)
    print(f"a stranger's weights: {stranger.status}")


if __name__ == "__main__":
    main()
