"""A chain in a bucket of S3 or of a service that speaks its protocol; behind the extra ``s3``.

HEAD moves by conditional requests (If-Match, If-None-Match), which S3 has had since 2024. Keys and
region come from where Amazon's own tools have them: the environment's AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for other services.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from decloud_trainer.errors import SettingsError, StoreUnavailable
from decloud_trainer.store.backend import MAX_RECORD_BYTES, Buffer, Stored, too_long

if TYPE_CHECKING:
    from obstore.store import S3Store

CONNECT_TIMEOUT = "10s"
REQUEST_TIMEOUT = "120s"
_NO_BUCKET = "NoSuchBucket"


class Bucket:
    """A chain under a prefix of a bucket, for any number of machines.

    Args:
        url: ``s3://bucket/prefix``

    Raises:
        SettingsError: the extra isn't installed, or the URL names no bucket.
        StoreUnavailable: the service can't be reached, or refuses; from every method.
    """

    keeps_others_out = False

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = _opened(url)

    def read(self, key: str, most: int = MAX_RECORD_BYTES) -> bytes | None:
        found = self._get(key, most)
        return None if found is None else found[0]

    def _get(self, key: str, most: int) -> tuple[bytes, str | None] | None:
        """The bytes and their tag."""
        import obstore

        with self._translated(key):
            try:
                answer = obstore.get(self._store, key)
                if answer.meta["size"] > most:
                    raise too_long(f"{self.url.rstrip('/')}/{key}", most)
                return bytes(answer.bytes()), answer.meta["e_tag"]
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
                return None

    def write(self, key: str, data: Buffer) -> None:
        import obstore

        with self._translated(key):
            obstore.put(self._store, key, data)

    def write_all(self, wanted: MutableMapping[str, Buffer]) -> None:
        for key, data in tuple(wanted.items()):
            self.write(key, data)
            del wanted[key]

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        found = self._get(key, MAX_RECORD_BYTES)
        if (None if found is None else found[0]) != old:
            return False
        with self._translated(key):
            try:
                if found is None:
                    obstore.put(self._store, key, new, mode="create")
                else:
                    obstore.put(self._store, key, new, mode={"e_tag": found[1]})
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def list(self, prefix: str) -> Iterator[Stored]:
        import obstore

        # The service lists whole folders; the rest of the prefix is compared here.
        folder = prefix.rpartition("/")[0]
        with self._translated(prefix):
            for batch in obstore.list(self._store, prefix=folder or None):
                for item in batch:
                    if item["path"].startswith(prefix):
                        modified = item["last_modified"].timestamp()
                        yield Stored(item["path"], item["size"], modified)

    def delete(self, key: str) -> None:
        import obstore

        with self._translated(key):
            obstore.delete(self._store, key)  # S3 says nothing when there is none

    def exclusive(self) -> AbstractContextManager[None]:
        """There is no lock in a bucket: `swap` decides."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise StoreUnavailable(
                f"{self.url.rstrip('/')}/{key}: {_first_line(error)}",
                hint="check the bucket's name, AWS_REGION, AWS_ENDPOINT_URL and the credentials",
            ) from error


def _opened(url: str) -> S3Store:
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise SettingsError(f"{url!r} names no bucket", hint="write s3://bucket/prefix")
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise SettingsError(
            f"{url} needs the package obstore", hint='pip install "decloud-trainer[s3]"'
        ) from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    try:
        return S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            endpoint=endpoint or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": CONNECT_TIMEOUT,
                "timeout": REQUEST_TIMEOUT,
            },
            # `Retrying` is patient for every backend alike.
            retry_config={"max_retries": 0},
        )
    except (ValueError, OSError) as error:
        raise SettingsError(f"{url} can't be opened: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """The library's messages go on with the service's whole answer."""
    if _NO_BUCKET in str(error):
        return "there is no such bucket"
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
