"""Landlock: a Linux process gives up access to all files but those under some paths, for good.

No privilege is needed. What is given up can't be had back, not by threads started later either;
threads that run already are not restricted. See Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The same numbers on every processor.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_TELL_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_UP_TO_MAKE_SYM = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # versions 2, 3, 5
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1  # version 4
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1  # version 6: none beyond this process

_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_CHANGE = (
    *(_READ, _WRITE_FILE, _TRUNCATE, _REFER),
    *(_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG),
)


@dataclass(frozen=True, slots=True)
class Access:
    """What stays accessible: each path, and what lies beneath it. Paths that aren't there are left
    out. Nothing can be executed, so no other program be started, under any of them.

    Attributes:
        read: files and folders to look at.
        change: folders to write in, too.
        devices: device files to read, write and steer.
    """

    read: tuple[Path, ...] = ()
    change: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def version() -> int:
    """Of the kernel's Landlock; 0 without one, or when it isn't enabled."""
    try:
        return _call(_CREATE_RULESET, None, 0, _TELL_VERSION)
    except OSError:
        return 0


def forbid_new_privileges() -> None:
    """No program started from here on has more rights than this one (set-user-id and the like).

    Raises OSError. What follows, and `seccomp`, need it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        _raise()


def restrict(access: Access, *, network: bool) -> int:
    """Restrict this thread, and all that it will start, to `access`; gives the version in use.

    From version 4 on TCP goes with it unless `network`, from 6 on signals to other processes.

    Raises:
        OSError: this kernel has no Landlock, or refused.
    """
    found = version()
    if found == 0:
        raise OSError("this kernel has no Landlock, or it isn't enabled")
    handled = _UP_TO_MAKE_SYM
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        handled |= right if found >= since else 0
    ruleset = _Ruleset(handled)
    size = 8
    if found >= 4:
        ruleset.handled_access_net = 0 if network else _BIND_TCP | _CONNECT_TCP
        size = 16
    if found >= 6:
        ruleset.scoped = _ABSTRACT_SOCKETS | _SIGNALS
        size = 24
    handle = _call(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    try:
        change = 0
        for right in _CHANGE:
            change |= right
        _allow(handle, access.read, _READ & handled)
        _allow(handle, access.change, change & handled)
        _allow(handle, access.devices, (_READ | _WRITE_FILE | _IOCTL_DEV) & handled)
        forbid_new_privileges()
        _call(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)
    return found


def _allow(ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        # What isn't there, or can't be reached, needs no permission.
        with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                is_folder = stat.S_ISDIR(os.fstat(beneath).st_mode)
                rule = _PathBeneath(rights if is_folder else rights & _OF_FILES, beneath)
                _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
            finally:
                os.close(beneath)


def _call(number: int, *arguments: object) -> int:
    """A system call that the C library has no function for. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    found = int(libc.syscall(ctypes.c_long(number), *words))
    if found < 0:
        _raise()
    return found


def _raise() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
