"""Which 32 bytes are an Ed25519 key that one person can have the private half of (RFC 8032 §5.1).

Libraries check a signature's equation and no more. Under a point of small order that equation holds for signatures
that anybody can write down, and a key has other spellings besides its own. Every honest key lies in the subgroup
of prime order, spelt in the one way that RFC 8032 gives, and so does the first half of every honest signature.
"""

from __future__ import annotations

from typing import TypeAlias

Point: TypeAlias = tuple[int, int, int, int]

ENCODED_BYTES = 32
PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, PRIME) % PRIME
ROOT_OF_MINUS_ONE = pow(2, (PRIME - 1) // 4, PRIME)
SIGN_BIT = 1 << 255


def check_public_key(encoded: bytes) -> None:
    """Refuse bytes that are not the one encoding of a point of prime order.

    Raises:
        ValueError: They are not; the message continues from the name of what held them.
    """
    if not is_of_prime_order(encoded):
        raise ValueError(
            f"names the key {encoded.hex()}, which nobody can own: it is not a point of prime order in its canonical "
            "encoding, and signatures under it can be made without a private key"
        )


def check_signature(signature: bytes) -> None:
    """Refuse an Ed25519 signature whose halves are not in the one form that signing gives.

    Raises:
        ValueError: R is not the encoding of a point of prime order, or S is not below the group order.
    """
    first, second = signature[:ENCODED_BYTES], signature[ENCODED_BYTES:]
    if len(second) != ENCODED_BYTES or int.from_bytes(second, "little") >= ORDER or not is_of_prime_order(first):
        raise ValueError("has a wrong signature (not in the one form that signing gives)")


def is_of_prime_order(encoded: bytes) -> bool:
    """Say whether *encoded* is the canonical encoding of a point of prime order; the neutral element is not."""
    point = _decode(encoded)
    return point is not None and not _is_neutral(point) and _is_neutral(_multiply(ORDER, point))


def _decode(encoded: bytes) -> Point | None:
    """Decode a point (RFC 8032 §5.1.3) or its negative, in extended coordinates; None where there is none.

    A sign where x is zero is no reason to refuse here: those two points have order one and two.
    """
    number = int.from_bytes(encoded, "little")
    # The sign bit says which of two points it is, this one or its negative: they have the same order.
    y = number & (SIGN_BIT - 1)
    if len(encoded) != ENCODED_BYTES or y >= PRIME:
        return None
    u, v = (y * y - 1) % PRIME, (D * y * y + 1) % PRIME
    x = u * pow(v, 3, PRIME) * pow(u * pow(v, 7, PRIME), (PRIME - 5) // 8, PRIME) % PRIME
    if v * x * x % PRIME == -u % PRIME:
        x = x * ROOT_OF_MINUS_ONE % PRIME
    if v * x * x % PRIME != u:
        return None
    return x, y, 1, x * y % PRIME


def _add(one: Point, other: Point) -> Point:
    """Add two points (RFC 8032 §5.1.4); the formula is complete, so that it doubles as well."""
    (x1, y1, z1, t1), (x2, y2, z2, t2) = one, other
    a, b = (y1 - x1) * (y2 - x2) % PRIME, (y1 + x1) * (y2 + x2) % PRIME
    c, d = 2 * t1 * t2 * D % PRIME, 2 * z1 * z2 % PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % PRIME, g * h % PRIME, f * g % PRIME, e * h % PRIME


def _multiply(factor: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            total = _add(total, point)
        point, factor = _add(point, point), factor >> 1
    return total


def _is_neutral(point: Point) -> bool:
    x, y, z, _ = point
    return x == 0 and y == z
