"""Files as a program with a wallet needs them: private, atomic, durable, one instance."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import filelock
import platformdirs

from decloud_trainer.errors import AlreadyRunning, DecloudError
from decloud_trainer.faultpoints import reach

APP = "decloud-trainer"
TUNING = "tuning"  # in the cache: measured speeds, which a training child may write
TEMPORARY_SUFFIX, PART_SUFFIX = ".tmp", ".part"
_LEFTOVER = re.compile(r"\..+\.(?P<pid>\d{1,9})-[a-z0-9_]+(\.tmp|\.part)")


def home_dir() -> Path:
    """Configuration, journal and keys: ``~/.decloud-trainer``, or ``DECLOUD_HOME``."""
    override = os.environ.get("DECLOUD_HOME")
    return Path(override).expanduser().resolve() if override else Path.home() / f".{APP}"


def new_wallet_path() -> Path:
    """Where a new key goes unless told otherwise."""
    return home_dir() / "wallet.json"


def cache_dir() -> Path:
    """What can be fetched or computed again. ``DECLOUD_HOME`` moves it along."""
    if os.environ.get("DECLOUD_HOME"):
        return home_dir() / "cache"
    return Path(platformdirs.user_cache_dir(APP, appauthor=False))


def wallet_locks_dir() -> Path:
    """Locks that all homes of this user on this machine share; DECLOUD_HOME doesn't move it."""
    return Path(platformdirs.user_cache_dir(APP, appauthor=False)) / "wallets"


def log_dir() -> Path:
    """Log files. ``DECLOUD_HOME`` moves them along."""
    if os.environ.get("DECLOUD_HOME"):
        return home_dir() / "logs"
    return Path(platformdirs.user_log_dir(APP, appauthor=False))


def absolute(path: str) -> str:
    """A relative path from here, so that it means the same wherever the daemon is started; ``~``
    stays, for a home that several machines share."""
    path = path.strip()
    return path if not path or path.startswith("~") else str(Path(path).absolute())


def make_private_dir(path: Path) -> Path:
    """Create `path` and its missing parents with mode 0700; if it exists it is narrowed to that.

    A folder that is meant for everybody (sticky, like /tmp) or another user's is left alone.
    """
    try:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
        found = path.stat()
        is_shared = found.st_mode & stat.S_ISVTX or found.st_uid != os.getuid()
        if found.st_mode & 0o077 and not is_shared:
            path.chmod(0o700)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise DecloudError(
            f"can't create the folder {path}: {error.strerror}",
            hint="check its owner and permissions, or set DECLOUD_HOME to a folder of your own",
        ) from error
    return path


def make_private_file(path: Path) -> None:
    """Create an empty file with mode 0600; one that exists is narrowed to that.

    It is not opened then: closing it would give up the locks that this process has on it through
    other handles (POSIX), and a SQLite database whose locks are gone loses what is written to it.
    Raises OSError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def open_plain(path: Path) -> BinaryIO:
    """A file where somebody else can write, a training child for instance, opened to be read: no
    link to a file elsewhere, and no pipe that nobody ever writes to. Its size is for the reader
    to mind.

    Raises:
        OSError: there is none, or it is no plain file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return os.fdopen(handle, "rb")


def write_atomic(path: Path, data: bytes | memoryview, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` so that after a power cut it holds the old bytes or the new."""
    write_together({path: data}, mode=mode)


def write_together(wanted: Mapping[Path, bytes | memoryview], *, mode: int = 0o600) -> None:
    """Replace each of these files as `write_atomic` does, with less waiting for the disk.

    All are durable when it returns; after a power cut before that, any of them may be the old one.
    A temporary file is in its file's folder (a rename is atomic only within a file system) and has
    its final mode from the start.
    """
    left = dict[Path, Path]()
    try:
        for path, data in wanted.items():
            reach("file.begin")
            handle, name = tempfile.mkstemp(
                dir=path.parent, prefix=temporary_prefix(path), suffix=TEMPORARY_SUFFIX
            )
            left[path] = Path(name)
            view, half = memoryview(data), len(data) // 2
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, mode)
                file.write(view[:half])
                file.flush()
                reach("file.torn")
                file.write(view[half:])
                file.flush()
                os.fsync(handle)
            reach("file.written")
        for path in wanted:
            left[path].replace(path)
            del left[path]
            reach("file.renamed")
    except BaseException:
        for temporary in left.values():
            temporary.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in wanted}:
        sync_dir(folder)


def temporary_prefix(path: Path) -> str:
    """How the names of things begin that this process makes beside `path` on the way to it."""
    return f".{path.name}.{os.getpid()}-"


def remove_leftovers(folder: Path) -> int:
    """Remove what processes that are gone left of such things in the folder; their number.

    To be called before this process makes any: in a container an earlier one had its number."""
    removed = 0
    with contextlib.suppress(OSError):  # a leftover costs only its space
        for path in folder.glob(".*"):
            match = _LEFTOVER.fullmatch(path.name)
            if match is None or _is_another_alive(int(match["pid"])):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            removed += 1
    return removed


def _is_another_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def publish(temporary: Path, path: Path) -> None:
    """Move a finished file to its final name, durably; both must be in one file system."""
    reach("publish.begin")
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    reach("publish.renamed")
    sync_dir(path.parent)


def set_aside(path: Path, now: float) -> Path:
    """Move a damaged database away, with what SQLite keeps beside it; its new path.

    Raises:
        DecloudError: it can't be moved.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    kept = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    try:
        # The database last: until it is gone, the next start begins anew with this.
        for end in ("-shm", "-wal", ""):
            source = Path(f"{path}{end}")
            if source.exists():
                source.replace(f"{kept}{end}")
        sync_dir(path.parent)
    except OSError as error:
        raise DecloudError(
            f"can't set the damaged {path} aside: {error.strerror}",
            hint="move it away by hand; rewards are found again on chain",
        ) from error
    return kept


def sync_dir(path: Path) -> None:
    """Make renames inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """The file's SHA-256 as 64 hex digits, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def single_instance(
    path: Path, what: str, *, hint: str = "", patience_s: float = 0.0
) -> Iterator[None]:
    """Hold the lock file `path`, or say who does.

    The lock is the operating system's: it ends with the process, however that ends.

    Args:
        hint: what to do about the other one.
        patience_s: to wait for one who only looks whether the lock is held.

    Raises:
        AlreadyRunning: another process holds it; the message names `what`.
        DecloudError: there can't be such a file.
    """
    make_private_dir(path.parent)
    lock = filelock.FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=patience_s, poll_interval=0.02)
    except filelock.Timeout as error:
        raise AlreadyRunning(f"{what} is already running (it holds {path})", hint=hint) from error
    except OSError as error:
        raise DecloudError(
            f"can't lock {path}: {error.strerror}",
            hint="check its owner and permissions, and that the disk isn't full",
        ) from error
    try:
        yield
    finally:
        lock.release()
