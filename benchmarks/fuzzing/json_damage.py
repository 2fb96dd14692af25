"""Damage to the values of a JSON document, which damage to its bytes would seldom reach."""

from __future__ import annotations

import json
import random
from typing import Any

# What readers trip over: kinds, signs and sizes that a field was not made for.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400),
    *(0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "0", "true", "../../etc/passwd", "a\0b", "\ud800", "\x1b[2K", "a." * 3000),
    *([], {}, [[]], [0], [True, True], [-1], [2**31, 2**31, 0], [1] * 70, {"": 0}),
)


def damaged(content: bytes, seed: int) -> bytes | None:
    """Return *content* with one to three of its values changed; None if it is not JSON."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    luck = random.Random(seed)  # noqa: S311 - nothing secret
    for _ in range(luck.randint(1, 3)):
        document = _change(document, luck)
    try:
        # Claims are read in this form alone; other readers take any.
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            errors="surrogatepass"
        )
    except (RecursionError, ValueError):
        return None


def _change(document: Any, luck: random.Random) -> Any:
    """Change one value: walk down by chance, and stop by chance."""
    if isinstance(document, dict) and document and luck.random() < 0.8:
        key = luck.choice(list(document))
        if luck.random() < 0.1:
            return {name: value for name, value in document.items() if name != key}
        if luck.random() < 0.1:
            return {**document, str(luck.choice(ODD_VALUES))[:50]: document[key]}
        return {**document, key: _change(document[key], luck)}
    if isinstance(document, list) and document and luck.random() < 0.8:
        place = luck.randrange(len(document))
        if luck.random() < 0.2:
            return document[:place] + document[place : place + 1] * luck.choice((0, 2, 3, 100)) + document[place + 1 :]
        return [*document[:place], _change(document[place], luck), *document[place + 1 :]]
    if isinstance(document, int) and not isinstance(document, bool) and luck.random() < 0.5:
        return (
            document + luck.choice((-1, 1, 1000))
            if luck.random() < 0.5
            else document * luck.choice((-1, 2, 10**6, 10**12))
        )
    if luck.random() < 0.02:
        for _ in range(luck.choice((10, 40, 2000))):
            document = [document]
        return document
    return luck.choice(ODD_VALUES)
