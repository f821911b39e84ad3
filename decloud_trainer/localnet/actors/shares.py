"""From improvements to contribution basis points: the v1 validator's arithmetic. Pure."""

from __future__ import annotations

from collections.abc import Sequence

WHOLE_BPS = 10_000
FAILED = -100.0
"""The improvement of a submission that could not be scored."""
_STILL_FAILED = -99.0


def contribution_bps(improvements: Sequence[float]) -> list[int] | None:
    """The shares of a scored round, in the submissions' order.

    Improvements are percentage points; -99 and less is a failed submission, which gets nothing.
    With at least one improvement above zero the shares are proportional (floored, the remainder
    goes to the first that has a share) and all others get nothing. With none, the submissions
    that could be scored share equally.

    Returns:
        Shares that sum to 10,000; None when nothing could be scored: then the validator sets
        nothing and the round is left to its time-out.
    """
    valid = [index for index, value in enumerate(improvements) if value > _STILL_FAILED]
    if not valid:
        return None
    total = sum(improvements[index] for index in valid if improvements[index] > 0)
    if total <= 0:
        shares = dict(zip(valid, equal_split(len(valid)), strict=True))
        return [shares.get(index, 0) for index in range(len(improvements))]
    bps = [int(WHOLE_BPS * value / total) if value > 0 else 0 for value in improvements]
    first = next(index for index, share in enumerate(bps) if share > 0)
    bps[first] += WHOLE_BPS - sum(bps)
    return bps


def equal_split(count: int) -> list[int]:
    """10,000 in `count` equal parts, one more to the first ones until it is used up.

    For the submissions that could be scored, when none of them improved anything.
    """
    share, rest = divmod(WHOLE_BPS, count)
    return [share + 1] * rest + [share] * (count - rest)


def fallback_split(count: int) -> list[int]:
    """10,000 in `count` equal parts, the remainder to the first.

    For all submitters alike, when the round itself could not be scored.
    """
    share, rest = divmod(WHOLE_BPS, count)
    return [share + rest] + [share] * (count - 1)
