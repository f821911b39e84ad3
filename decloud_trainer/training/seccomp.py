"""seccomp: the kernel refuses a Linux process some system calls, for good.

The filter is a program for the kernel's packet filter machine. It sees a call's number and its
arguments, but not what pointers point to; what depends on that is refused as a whole.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterable

from decloud_trainer.training.landlock import forbid_new_privileges

# (x86_64, aarch64); None where there is no such call.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # Other programs and processes.
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    # The network. io_uring connects without the calls for it.
    "socket": (41, 198),
    "connect": (42, 203),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # What Landlock doesn't watch: modes, owners and attributes of any file by its name, and in
    # its early versions its length.
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "truncate": (76, 45),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "open_by_handle_at": (304, 265),
    # Keys that the kernel holds for the user.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # The system's own matters, and doors to its defects.
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
}
# Libraries take these for a kernel that is too old for them, and do it another way.
_UNKNOWN = {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"}
_SECCOMP = (317, 277)
# The AUDIT_ARCH_* of <linux/audit.h>.
_PROCESSORS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_SET_MODE_FILTER = 1
# All threads; and without the brake on speculation that kernels before 5.16 add to a filter, which
# would cost training some percent of its speed.
_FLAGS = 1 << 0 | 1 << 2

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # of 32-bit words
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45
_AT_NUMBER, _AT_PROCESSOR, _AT_ARGUMENTS = 0, 4, 16
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.c_void_p))


def restrict(*, network: bool) -> None:
    """No other program or process, no signal to one, none of the calls above; and no socket but
    unconnected UNIX ones (a GPU's driver wants one). With `network` Internet sockets can be used.

    Raises:
        OSError: there is no such filter here, or the kernel refused it.
    """
    column, processor = _PROCESSORS.get(platform.machine(), (0, 0))
    if sys.platform != "linux" or not processor:
        raise OSError(f"no filter of system calls for {sys.platform} on {platform.machine()}")
    program = _program(column, processor, network=network)
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    held = ctypes.create_string_buffer(code, len(code))
    forbid_new_privileges()
    libc = ctypes.CDLL(None, use_errno=True)
    given = _Program(len(program), ctypes.addressof(held))
    number = _SECCOMP[column]
    if libc.syscall(number, _SET_MODE_FILTER, _FLAGS, ctypes.byref(given)) != 0:
        found = ctypes.get_errno()
        raise OSError(found, os.strerror(found))


def _program(column: int, processor: int, *, network: bool) -> list[_Instruction]:
    """Blocks one below the other; who isn't meant jumps to the next one."""
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _AT_PROCESSOR),
        (_EQUAL, 1, 0, processor),
        (_RETURN, 0, 0, _KILL),  # a 32-bit call, with numbers of its own
        (_LOAD, 0, 0, _AT_NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        _refuse(errno.ENOSYS),
    ]
    special = {
        "socket": _socket_block(network=network),
        "connect": [(_RETURN, 0, 0, _ALLOW)] if network else [_refuse(errno.EACCES)],
        "clone": [
            *_argument(0),
            (_ANY_BIT, 0, 1, _CLONE_THREAD),
            (_RETURN, 0, 0, _ALLOW),
            _refuse(errno.EPERM),
        ],
        "kill": _if_argument(0, [os.getpid()]),
        "tgkill": _if_argument(0, [os.getpid()]),
        "prlimit64": _if_argument(0, [0, os.getpid()]),
    }
    for name, numbers in _NUMBERS.items():
        number = numbers[column]
        if number is None:
            continue
        error = errno.ENOSYS if name in _UNKNOWN else errno.EPERM
        block = special.get(name, [_refuse(error)])
        program += [(_EQUAL, 0, len(block), number), *block]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _socket_block(*, network: bool) -> list[_Instruction]:
    if network:
        # NETLINK tells resolvers which addresses this machine has.
        return _if_argument(0, [socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK])
    # A UNIX socket that can't be connected reaches nobody; a datagram needs no connection.
    return [
        *_argument(0),
        (_EQUAL, 1, 0, socket.AF_UNIX),
        _refuse(errno.EACCES),
        *_argument(1),
        (_AND, 0, 0, 0xF),  # without SOCK_CLOEXEC and SOCK_NONBLOCK
        (_EQUAL, 0, 1, socket.SOCK_DGRAM),
        _refuse(errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _if_argument(place: int, values: Iterable[int]) -> list[_Instruction]:
    """Allow the call if that argument has one of the values."""
    block = _argument(place)
    for value in values:
        block += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*block, _refuse(errno.EPERM)]


def _argument(place: int) -> list[_Instruction]:
    """Load the lower half: both processors have it first, and all these arguments are int."""
    return [(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * place)]


def _refuse(error: int) -> _Instruction:
    return (_RETURN, 0, 0, _REFUSE | error)
