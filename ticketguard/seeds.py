"""Seeds of runs: one is drawn where none is given, and what it draws cannot be guessed.

Whoever has the weights that a ticket started from can tell planted edges by them, and who can make the whole search
again finds the unmarked ticket. torch's CPU generator keeps 32 bits of a seed, so that start weights which it draws in
its own way are one of 2^32, all of which can be tried on a released ticket. Seeds from `GUESSABLE` on therefore set the
whole state of a generator. They have 53 bits, which every reader of JSON keeps, and are stretched as passphrases are,
so that nobody can try them all. Smaller seeds draw what torch and numpy draw by them (docs/decisions/0066).
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from typing import TYPE_CHECKING

import numpy as np

from ticketguard.errors import ConfigurationError
from ticketguard.keyed import KeyedStream
from ticketguard.settings import MAX_SEED

if TYPE_CHECKING:
    import torch

# All seeds below it can be tried: it is as many as torch's generator tells apart.
GUESSABLE = 2**32
# scrypt (RFC 7914) with 16 MiB, some 50 ms of one core.
SCRYPT = {"n": 2**14, "r": 8, "p": 1, "maxmem": 2**25}
SALT = b"ticketguard seed"
# A Mersenne Twister's state, and where it lies in what `torch.Generator.get_state` returns: a word takes eight bytes.
STATE_WORDS, STATE_OFFSET = 624, 24


def can_be_guessed(seed: int) -> bool:
    """Whether what *seed* draws can be found by trying all seeds of its size."""
    return seed < GUESSABLE


def drawn_seed() -> int:
    """Return a fresh seed from the operating system, one that cannot be guessed."""
    return GUESSABLE + secrets.randbelow(MAX_SEED + 1 - GUESSABLE)


def seed_of(secret: bytes) -> int:
    """Return the seed that follows from an owner's 32 secret bytes; it cannot be guessed without them."""
    stream = KeyedStream(secret=secret, commitment=bytes(32), label="seed")
    return GUESSABLE + int(stream.integers(MAX_SEED + 1 - GUESSABLE, 1)[0])


@functools.lru_cache(maxsize=256)
def entropy_of(seed: int) -> int:
    """Return what numpy's generators are seeded with for *seed*: itself, or 256 bits where it cannot be guessed."""
    if can_be_guessed(seed):
        return seed
    return int.from_bytes(hashlib.scrypt(str(seed).encode(), salt=SALT, dklen=32, **SCRYPT), "little")


def fill_generator(generator: torch.Generator, seed: int, *numbers: int) -> None:
    """Set all of a CPU *generator*'s state by *seed* and *numbers*; one that can be guessed leaves it as it is seeded.

    Raises:
        ConfigurationError: The installed torch keeps the state in another way.
    """
    if can_be_guessed(seed):
        return
    state = generator.get_state()
    end = STATE_OFFSET + 8 * STATE_WORDS
    words = state.numpy()[STATE_OFFSET:end].view(np.uint64)
    if len(words) < STATE_WORDS or words[0] != generator.initial_seed() % 2**32:
        raise ConfigurationError(
            f"seed is {seed}, but this version of torch keeps a generator's state in another way: give a seed below "
            f"{GUESSABLE}, or install the version in constraints.txt"
        )
    stream = b"".join(number.to_bytes(8, "little", signed=True) for number in numbers)
    message = entropy_of(seed).to_bytes(32, "little") + stream
    words[:] = np.frombuffer(hashlib.shake_256(message).digest(4 * STATE_WORDS), dtype="<u4")
    generator.set_state(state)
