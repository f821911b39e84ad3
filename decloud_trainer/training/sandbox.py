"""The reduced rights of a worker process: entered at its start, never left.

A stranger's model is read as data and never run. These are the walls behind that, for the case
that a library has a defect: no network, no other file than the job's, no other process, bounded
resources. Each is taken where the system offers it, and what is missing is said. There is no key
here to begin with: neither arguments, environment nor job hold one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from decloud_trainer import files
from decloud_trainer.training import landlock, seccomp
from decloud_trainer.training.landlock import Access
from decloud_trainer.training.limits import forbid_core_dumps, machine_bytes, usable_processors
from decloud_trainer.training.spec import InspectSpec, PrepareSpec, Spec, TrainSpec

log = logging.getLogger(__name__)

GIB = 1024**3
# A checkpoint of the largest model has some 16 GiB. Preparing writes whatever the user's data is.
FILE_BYTES = {InspectSpec: GIB, TrainSpec: 64 * GIB}
INSPECTION_S = 900.0
ENDING_S = 900.0
OPEN_FILES = 4096
# Address space that libraries reserve for their threads and never use counts as memory here.
RESERVED_BYTES = 4 * GIB

# Python, torch and the drivers of a GPU read these: nobody's secrets.
_SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store"),
    *("/sys", "/run/opengl-driver", "/proc/self", "/proc/sys", "/proc/driver"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime"),
    *("/proc/version", "/proc/devices", "/proc/modules", "/proc/interrupts", "/proc/filesystems"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload"),
    *("/etc/localtime", "/etc/timezone", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/os-release", "/etc/mime.types", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"),
    *("/etc/crypto-policies", "/etc/OpenCL", "/etc/vulkan", "/etc/nvidia"),
)
_FOR_NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/protocols", "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/pki/tls/certs"),
    *("/etc/pki/ca-trust", "/etc/ca-certificates", "/run/systemd/resolve", "/run/resolvconf"),
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_GPUS = ("nvidia*", "kfd", "dri", "dxg")
_PATHS_FROM_ENVIRONMENT = (
    *("LD_LIBRARY_PATH", "CUDA_HOME", "SSL_CERT_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
)
# Where drivers keep what they compiled; their own places in the home can't be written.
_GPU_CACHES = ("CUDA_CACHE_PATH", "MIOPEN_USER_DB_PATH", "MIOPEN_CUSTOM_CACHE_DIR")

# Root keeps the right to files of other users, which Landlock bounds; and nothing else.
_CAPABILITIES_KEPT = 1 << 1 | 1 << 2 | 1 << 3  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker may take; 0 = as much as there is. Exceeding `cpu_s` ends the process, the
    others are errors inside it.

    Attributes:
        memory_bytes: writable memory. Linux alone has such a limit.
        cpu_s: processor time, all threads together.
        file_bytes: the length of any file that it writes.
        open_files: at a time.
    """

    memory_bytes: int = 0
    cpu_s: int = 0
    file_bytes: int = 0
    open_files: int = OPEN_FILES


@dataclass(frozen=True, slots=True)
class Walls:
    """What is around this process now.

    Attributes:
        landlock: the version in use; 0 = files are not restricted.
        seccomp: whether system calls are filtered.
        missing: what could not be had, and why, in words.
    """

    landlock: int
    seccomp: bool
    missing: tuple[str, ...] = ()


def enter(spec: Spec, folder: Path) -> Walls:
    """Reduce the rights of this process to what the job needs. Before any thread is started.

    Makes the folders that the job will write to, as far as they aren't there.

    Raises:
        DecloudError: such a folder can't be made.
    """
    os.environ["TMPDIR"] = str(folder)
    access = access_of(spec, folder)
    if access.devices:
        _wake_gpu(folder)
    return confine(access, bounds_of(spec, time.time()), network=isinstance(spec, PrepareSpec))


def confine(access: Access, bounds: Bounds, *, network: bool) -> Walls:
    """Take the rights away, for good."""
    bound(bounds)
    if sys.platform != "linux":
        why = f"{sys.platform} has no Landlock and no seccomp: files, network and processes are"
        return Walls(0, False, (f"{why} not restricted, resources are",))
    missing, version, filtered = [], 0, False
    try:
        version = landlock.restrict(access, network=network)
    except OSError as error:
        missing.append(f"files are not restricted (no Landlock: {error.strerror or error})")
    try:
        seccomp.restrict(network=network)
        filtered = True
    except OSError as error:
        missing.append(f"network and processes are not restricted ({error.strerror or error})")
    if os.geteuid() == 0:
        try:
            _drop_capabilities()
        except OSError as error:
            missing.append(f"root's capabilities are kept ({error.strerror})")
    return Walls(version, filtered, tuple(missing))


def access_of(spec: Spec, folder: Path) -> Access:
    """The files of one job, and of Python, torch and the system."""
    read = [*_system(), *_python(), *_from_environment()]
    cache = files.cache_dir()
    if isinstance(spec, PrepareSpec):
        data_dir = files.make_private_dir(spec.data.data_dir)
        read += [*map(Path, _FOR_NETWORK), *_of_user(spec.data.path)]
        return Access(tuple(read), (folder, data_dir), _devices())
    read += _of_user(spec.tokenizer)
    change = [folder, files.make_private_dir(cache / files.TUNING)]
    if isinstance(spec, InspectSpec):
        read.append(spec.model)
    else:
        read.append(spec.model.path)
        for data in filter(None, (spec.data, spec.preview)):
            read += [data.data_dir, *_of_user(data.path)]
            change.append(files.make_private_dir(data.data_dir / "decoded"))
    gpus = () if spec.device == "cpu" else _gpus()
    if gpus:
        compiled = files.make_private_dir(cache / "gpu")
        os.environ.update(dict.fromkeys(_GPU_CACHES, str(compiled)))
        change.append(compiled)
        gpus = (*gpus, Path("/dev/shm"))  # noqa: S108  no temporary file of ours
    return Access(tuple(read), tuple(change), (*_devices(), *gpus))


def bounds_of(spec: Spec, now: float) -> Bounds:
    """Generous ones: they end what has gone mad, not what takes long.

    Args:
        now: unix seconds.
    """
    wall_s = 0.0
    if isinstance(spec, InspectSpec):
        wall_s = INSPECTION_S
    elif isinstance(spec, TrainSpec) and spec.deadline is not None:
        wall_s = max(spec.deadline - now, 0.0) + ENDING_S
    cpu_s = int(min(wall_s * (usable_processors() + 1), 2.0**40))
    return Bounds(_memory(spec), cpu_s, FILE_BYTES.get(type(spec), 0))


def bound(bounds: Bounds) -> None:
    """Set the limits of this process; none is ever raised. No core dump in any case."""
    forbid_core_dumps()
    if sys.platform == "linux":
        _lower(resource.RLIMIT_DATA, bounds.memory_bytes)
    _lower(resource.RLIMIT_CPU, bounds.cpu_s)
    _lower(resource.RLIMIT_FSIZE, bounds.file_bytes)
    _lower(resource.RLIMIT_NOFILE, bounds.open_files)


def _memory(spec: Spec) -> int:
    """All of the machine's memory; 0 = no limit, where the size isn't known or a GPU is there,
    whose driver maps more than it uses.

    What is mapped of the decoded data is counted by the system, though it's shared and can be
    dropped: it comes on top, once for training and once for scoring.
    """
    device = "cpu" if isinstance(spec, PrepareSpec) else spec.device
    machine = machine_bytes()
    if machine is None or (device != "cpu" and _gpus()):
        return 0
    mapped = 0
    if isinstance(spec, TrainSpec):
        for data in filter(None, (spec.data, spec.preview)):
            mapped += _size(data.data_dir / "decoded")
    return machine + mapped + RESERVED_BYTES


def _lower(kind: int, value: int) -> None:
    if value:
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _size(folder: Path) -> int:
    total = 0
    for each in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # others evict and finish entries meanwhile
            total += each.stat().st_size
    return total


def _system() -> Iterable[Path]:
    home = Path.home().resolve()
    return [each for name in _SYSTEM for each in _without(Path(name), (home, files.home_dir()))]


def _python() -> Iterable[Path]:
    """Where the interpreter and all packages are. A folder above a home is none of them, even if
    modules are looked for there; our own package is always one."""
    homes = (Path.home().resolve(), files.home_dir())
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    libraries = (f"{prefix}/{name}" for prefix in prefixes for name in ("bin", "lib", "lib64"))
    for place in sorted({*prefixes, *libraries, *sys.path} - {""}):
        path = Path(place).resolve()
        if not any(home.is_relative_to(path) for home in homes):
            yield path
    yield Path(__file__).resolve().parent.parent


def _of_user(path: Path | None) -> Iterable[Path]:
    """A path from the settings; without our home and Solana's, should they be beneath it."""
    if path is None:
        return []
    keys = (files.home_dir(), Path.home() / ".config" / "solana")
    return _without(path.resolve(), tuple(key.resolve() for key in keys))


def _without(path: Path, left_out: tuple[Path, ...]) -> Iterable[Path]:
    """The path; or what is in it, part by part, when some of it is to be left out."""
    if not any(each.is_relative_to(path) for each in left_out):
        yield path
    elif path not in left_out and path.is_dir():
        for part in sorted(path.iterdir()):
            if not part.is_symlink():
                yield from _without(part, left_out)


def _from_environment() -> Iterable[Path]:
    entries = (os.environ.get(name, "").split(os.pathsep) for name in _PATHS_FROM_ENVIRONMENT)
    return [Path(entry) for entry in itertools.chain(*entries) if os.path.isabs(entry)]


def _devices() -> tuple[Path, ...]:
    return tuple(Path("/dev") / name for name in _DEVICES)


def _gpus() -> tuple[Path, ...]:
    return tuple(path for pattern in _GPUS for path in sorted(Path("/dev").glob(pattern)))


def _wake_gpu(folder: Path) -> None:
    """Have NVIDIA's device files made. The first program that uses CUDA after a start of the
    machine does that by a privileged one, which can't be started any more from inside."""
    tool = shutil.which("nvidia-modprobe")
    if tool and Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidia-uvm").exists():
        try:
            subprocess.run([tool, "-c0", "-u"], cwd=folder, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("%s: %s", tool, error)


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Effective, permitted, inheritable; first the numbers below 32, then those above.
    sets = (ctypes.c_uint32 * 6)(_CAPABILITIES_KEPT, _CAPABILITIES_KEPT, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    held = (ctypes.c_uint32 * 6)()
    if libc.capget(header, held) == 0:
        for place in range(6):
            sets[place] &= held[place]  # root of a container may have had fewer
    if libc.capset(header, sets) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
