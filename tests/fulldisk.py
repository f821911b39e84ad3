"""A life of rounds in a home whose file system is really full: ``python tests/fulldisk.py FOLDER``

The home is a small file system of its own, mounted where nobody outside of this process and its
children sees it. It is full before the first start, again while the round trains, and once more
before the reward. The exit code is 77 where nothing may be mounted, with the reason on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from chaosworld import Chaos, Life, chaos, finish

from decloud_trainer.rounds.entry import State

REFUSED = 77
SIZE = 24 * 1024**2
_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000  # <linux/sched.h>
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14  # <linux/mount.h>
FULL = (os.strerror(errno.ENOSPC), "disk is full")


def see_mounts_of_our_own() -> None:
    """What this process mounts from now on is seen by itself and its children alone. Root may do
    so; others may where they can be root of a namespace of their own.

    Raises:
        OSError: neither is allowed here.
    """
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEW_MOUNTS)
    except OSError:
        _call("unshare", _NEW_MOUNTS | _NEW_USERS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, _PRIVATE | _RECURSIVE, None)


def mount_small(folder: Path) -> None:
    options = f"size={SIZE},mode=0700".encode()
    _call("mount", b"none", os.fsencode(folder), b"tmpfs", 0, options)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not a byte more can be written there inside."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(folder).f_bavail == 0
    yield
    ballast.unlink()


def told(life: Life) -> int:
    """How often its daemons have said that the disk is full."""
    text = life.log.read_text("utf-8", "replace") if life.log.exists() else ""
    return sum(text.count(words) for words in FULL)


async def live(world: Chaos) -> None:
    life = world.life("full", lambda _: "")
    life.may_end_with = (1,)
    mount_small(life.home)
    number = world.post()
    with filled(life.home):
        await world.start()
        await world.until("refused to start", lambda life: bool(life.reasons))
    assert all(any(words in reason for words in FULL) for reason in life.reasons), life.reasons
    await world.all_in(number, State.WATCHING, State.FETCHED)
    life.may_end_with = ()
    world.take(number)
    await world.all_joined(number)
    with filled(life.home):
        before = told(life)
        world.net.start_training(number)
        # Its journal may have room of its own, its artefact hasn't.
        await world.until("said so", lambda life: told(life) > before)
        assert not world.submission(life, number).submitted
    await world.all_submitted(number)
    with filled(life.home):
        before = told(life)
        world.complete(number)
        await world.until(
            "said so or claimed",
            lambda life: told(life) > before or world.submission(life, number).reward_claimed,
        )
    await finish(world, number)


async def main(folder: Path) -> None:
    async with chaos(folder) as world:
        await live(world)


if __name__ == "__main__":
    try:
        see_mounts_of_our_own()
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        sys.exit(REFUSED)
    asyncio.run(main(Path(sys.argv[1])))
