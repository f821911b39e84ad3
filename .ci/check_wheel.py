"""Load every packaged file from an installed wheel, with the standard library alone."""

from __future__ import annotations

import gzip
import json
import zipfile
from importlib.resources import files
from importlib.resources.abc import Traversable


def check(found: Traversable) -> bool:
    """Whether the file is one that the program reads at run time, and is whole."""
    name, data = found.name, found.read_bytes()
    if name.endswith(".json"):
        assert isinstance(json.loads(data), dict), name
    elif name.endswith(".gz"):
        assert gzip.decompress(data)[:2] == b"\0\0", f"{name} is no IDX file"
    elif name.endswith(".csv"):
        assert len({line.count(b",") for line in data.splitlines()}) == 1, f"{name} is no table"
    elif name.endswith(".so"):
        assert data.startswith(b"\x7fELF"), name
    elif name.endswith(".pt"):
        assert zipfile.ZipFile(found.open("rb")).testzip() is None, name
    else:
        return False
    return True


def main() -> None:
    package = files("decloud_trainer")
    expected = {
        "preset_files": 7,
        "chain/idl": 3,
        "localnet/program": 2,
        "data/digits": 4,
        "data/docs": 1,
        "data/models": 1,
        "data/tables": 4,
    }
    for folder, count in expected.items():
        entries = [found for found in package.joinpath(folder).iterdir() if found.is_file()]
        loaded = [found.name for found in entries if check(found)]
        assert len(loaded) == count, f"{folder}: {loaded}"
        print(f"{folder}: {', '.join(sorted(loaded))}")
    print("the wheel holds every file that it needs")


if __name__ == "__main__":
    main()
