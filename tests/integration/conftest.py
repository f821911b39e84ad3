"""What several of these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3server import s3_server


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server with a bucket ``models``."""
    with s3_server() as url:
        yield url
