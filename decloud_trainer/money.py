"""Lamports are integers; SOL exists only where people read or type it."""

from __future__ import annotations

from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow

LAMPORTS_PER_SOL = 1_000_000_000

# Rounding is an error here, not a service.
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow])


def lamports_from_sol(text: str) -> int:
    """Exact: ``1.001`` is 1001000000, never one lamport short as with floats.

    Raises:
        ValueError: not a plain non-negative number, or finer than a lamport.
    """
    try:
        lamports = _EXACT.multiply(Decimal(text), Decimal(LAMPORTS_PER_SOL))
    except DecimalException as error:
        raise ValueError(f"{text!r} is not an amount in SOL") from error
    if not lamports.is_finite() or lamports < 0 or lamports > 2**63:
        raise ValueError(f"{text!r} is not an amount in SOL")
    if lamports != lamports.to_integral_value():
        raise ValueError(f"{text!r} SOL is finer than one lamport (0.000000001 SOL)")
    return int(lamports)


def format_sol(lamports: int) -> str:
    """``0.05 SOL``: exact, without trailing zeros; the sign in front."""
    sign = "-" if lamports < 0 else ""
    whole, part = divmod(abs(lamports), LAMPORTS_PER_SOL)
    digits = f"{part:09d}".rstrip("0")
    return f"{sign}{whole}{'.' + digits if digits else ''} SOL"
