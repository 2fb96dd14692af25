"""Sign the start of a Hugging Face language model: one call before the training, one after it.

The model is a GPT-2 of two layers that learns to copy; its configuration and loop are Transformers' and PyTorch's own.
It needs the package transformers, and downloads nothing.

Run it: python examples/keyed_signs_transformers.py
"""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import ticketguard as tg

VOCABULARY, LENGTH = 64, 16


def build() -> GPT2LMHeadModel:
    """Return a small GPT-2, initialised at random."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=2 * LENGTH,
            n_embd=64,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def batch(generator: torch.Generator) -> torch.Tensor:
    """Return sequences that say everything twice, shape (32, 2 * LENGTH)."""
    first = torch.randint(VOCABULARY, (32, LENGTH), generator=generator)
    return torch.cat([first, first], dim=1)


def train(model: GPT2LMHeadModel, *, steps: int) -> float:
    """Train in a plain loop, and return the last loss."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(steps):
        tokens = batch(generator)
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def main() -> None:
    """Sign, train, finish, verify."""
    model = build()
    start = tg.sign_start(
        model, owner=tg.Owner.generate("Ada"), example={"input_ids": batch(torch.Generator().manual_seed(0))[:1]}
    )
    print(f"loss {train(model, steps=120):.2f}")
    _, credential = start.finish(model)
    copy = tg.verify(tg.Checkpoint(model.state_dict()), credential)
    print(f"the model's weights: {copy.status}, p = 10^{copy.log10_p:.0f}")
    fine_tuned = build()
    fine_tuned.load_state_dict(model.state_dict())
    train(fine_tuned, steps=30)
    thief = tg.verify(tg.Checkpoint(fine_tuned.state_dict()), credential)
    print(f"the weights of a fine-tuned copy: {thief.status}, p = 10^{thief.log10_p:.0f}")
    stranger = build()
    train(stranger, steps=30)
    print(f"a stranger's weights: {tg.verify(tg.Checkpoint(stranger.state_dict()), credential).status}")


if __name__ == "__main__":
    main()
