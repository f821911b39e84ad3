"""A server's wish to be left alone is read in both of its forms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from decloud_trainer.retryafter import retry_after_s


def test_retry_after_is_read_in_both_forms() -> None:
    """Servers ask for seconds or name a moment."""

    now = datetime.now(UTC)
    in_an_hour = retry_after_s(format_datetime(now + timedelta(hours=1), usegmt=True))
    assert retry_after_s("0") == 0
    assert retry_after_s("120") == 120
    assert in_an_hour is not None
    assert 3500 <= in_an_hour <= 3601
    assert retry_after_s(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0


@pytest.mark.parametrize("header", ["", "soon", "-5", "1e3", "²"])
def test_an_unreadable_retry_after_is_none(header: str) -> None:
    """Nonsense is no promise."""
    assert retry_after_s(header) is None
