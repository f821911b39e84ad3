"""The build command: compares, tells what it couldn't compare, says what is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from decloud_trainer.localnet.program import build

needs_clang = pytest.mark.skipif(not shutil.which("clang-14"), reason="clang-14 is not installed")


def fake_clang(folder: Path, version: str, then: str = 'exec clang-14 "$@"') -> str:
    path = folder / "clang"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" && exit\n{then}\n')
    path.chmod(0o755)
    return str(path)


@needs_clang
def test_the_shipped_files_are_what_the_source_compiles_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--check` with clang 14 succeeds for both generations."""
    assert build.main(["--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "decloud_v1_0.so: equal to the shipped file",
        "decloud_v1_2.so: equal to the shipped file",
    ]


@needs_clang
def test_a_difference_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source that has moved on from the shipped file gives 1 and names the file."""
    for file in build.SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    source = tmp_path / "params.h"
    source.write_text(source.read_text().replace("#define CID_MAX 64", "#define CID_MAX 63"))
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    assert build.main(["--check"]) == 1
    assert "decloud_v1_2.so: DIFFERS from the source" in capsys.readouterr().out


@needs_clang
def test_another_version_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other compilers give other bytes; that is no failure."""
    clang = fake_clang(tmp_path, "Debian clang version 19.1.7 (3)")
    assert build.main(["--check", "--clang", clang]) == 0
    assert "not compared" in capsys.readouterr().out


@needs_clang
def test_out_gets_both_programs(tmp_path: Path) -> None:
    """A folder that doesn't exist yet is made."""
    out = tmp_path / "new" / "folder"
    assert build.main(["--out", str(out)]) == 0
    assert sorted(os.listdir(out)) == ["decloud_v1_0.so", "decloud_v1_2.so"]


def test_no_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names it and says how to get one."""
    assert build.main(["--check", "--clang", "no-such-clang"]) == 1
    error = capsys.readouterr().err
    assert "there is no compiler no-such-clang" in error
    assert "apt-get install clang-14" in error


def test_not_a_compiler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that is something else, or one that fails, is told from a good one."""
    assert build.main(["--check", "--clang", fake_clang(tmp_path, "gcc 12")]) == 1
    assert "is not clang" in capsys.readouterr().err
    broken = fake_clang(tmp_path, "clang version 14.0.6", "echo boom >&2; exit 3")
    assert build.main(["--out", str(tmp_path), "--clang", broken]) == 1
    assert "boom" in capsys.readouterr().err
