"""A real S3 server on this machine: moto's, in a process of its own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from processes import free_port


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of a server with an empty bucket ``models``."""
    pytest.importorskip("obstore")
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(words, stdout=nowhere, stderr=nowhere) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 60
            while not _has_bucket(url):
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server doesn't answer"
                time.sleep(0.05)
            yield url
        finally:
            process.kill()


def _has_bucket(url: str) -> bool:
    """Whether there is a bucket ``models`` now."""
    make = urllib.request.Request(f"{url}/models", method="PUT")
    try:
        with urllib.request.urlopen(make, timeout=10):
            return True
    except urllib.error.HTTPError as refused:
        refused.close()
    except OSError:
        pass  # nobody listens yet
    return False


def bucket_url(server: str, patch: pytest.MonkeyPatch, name: str) -> str:
    """The URL of a chain of that name; the environment leads to the server."""
    patch.setenv("AWS_ENDPOINT_URL", server)
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_REGION", "us-east-1")
    return f"s3://models/{re.sub('[^a-z0-9_]', '-', name.lower())}"
