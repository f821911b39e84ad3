"""Compile the program: `python -m decloud_trainer.localnet.program.build [--check]`.

Both generations come from one source with clang 14 (Debian: `apt-get install clang-14`) and the
linker step beside this file. The compiled files are shipped; `--check` builds them anew and
compares byte for byte.
"""

# ruff: noqa: T201 - a build tool speaks on the terminal

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from decloud_trainer.errors import DecloudError
from decloud_trainer.files import write_atomic
from decloud_trainer.localnet.program.link import link

SOURCE = Path(__file__).parent
SHIPPED_WITH = 14  # the major version of clang that made the shipped files
DEFINES = {"decloud_v1_0.so": ["-DDECLOUD_V1_0"], "decloud_v1_2.so": []}
FLAGS = [
    *("-target", "bpf", "-Oz", "-std=c11", "-Wall", "-Wextra", "-Werror"),
    *("-ffreestanding", "-fno-builtin", "-fno-jump-tables", "-fno-ident"),
]
TIMEOUT_S = 120


def build(clang: str, out: Path) -> None:
    """Compile and link both generations into the folder `out`.

    Raises:
        DecloudError: no such compiler, or it or the linker refuses the source.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name, defines in DEFINES.items():
            obj = Path(scratch) / "program.o"
            # In the source's folder and with a relative name: no path gets into the object.
            _run([clang, *FLAGS, *defines, "-c", "program.c", "-o", str(obj)])
            write_atomic(out / name, link(obj.read_bytes()), mode=0o644)


def major_version(clang: str) -> int:
    """The compiler's major version.

    Raises:
        DecloudError: it can't be started, or says no version.
    """
    found = re.search(r"clang version (\d+)\.", _run([clang, "--version"]))
    if not found:
        raise DecloudError(f"{clang} is not clang", hint="install clang-14, or name it by --clang")
    return int(found[1])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, cwd=SOURCE, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise DecloudError(
            f"there is no compiler {command[0]} on this machine",
            hint="install clang-14 (Debian: apt-get install clang-14), or name it by --clang",
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DecloudError(f"{command[0]} can't be run: {error}") from error
    if done.returncode != 0:
        raise DecloudError(f"{command[0]} failed:\n{done.stderr.strip()}")
    return done.stdout


def check(clang: str) -> int:
    """0: the shipped files are what the source gives, or can't be compared; 1: they differ."""
    version = major_version(clang)
    with tempfile.TemporaryDirectory() as scratch:
        build(clang, Path(scratch))
        if version != SHIPPED_WITH:
            print(f"compiled, not compared: {clang} is clang {version}, not {SHIPPED_WITH}")
            return 0
        different = 0
        for name in DEFINES:
            equal = (Path(scratch) / name).read_bytes() == (SOURCE / name).read_bytes()
            print(f"{name}: {'equal to the shipped file' if equal else 'DIFFERS from the source'}")
            different += not equal
    return 1 if different else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m decloud_trainer.localnet.program.build", description=__doc__
    )
    parser.add_argument("--check", action="store_true", help="compare with the shipped files")
    parser.add_argument("--clang", default="clang-14", help="the compiler (default: clang-14)")
    parser.add_argument("--out", type=Path, default=SOURCE, help="folder for the two programs")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            return check(options.clang)
        options.out.mkdir(parents=True, exist_ok=True)
        build(options.clang, options.out)
    except DecloudError as error:
        print(
            f"error: {error.message}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr
        )
        return error.exit_code
    for name in DEFINES:
        print(f"{options.out / name}: {(options.out / name).stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
