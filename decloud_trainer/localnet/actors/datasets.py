"""Which data stands behind the datasets that rounds name.

A local network keeps the answer in one file of its state folder, so that whoever posts a round
can say where its data is, and the validator and the competitors find it at their next look.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from decloud_trainer import data
from decloud_trainer.errors import DatasetUnavailable, SettingsError
from decloud_trainer.files import write_atomic
from decloud_trainer.names import dataset_key

ON_CHAIN = {"digits": "Custom", "mnist": "Mnist", "fashionmnist": "FashionMnist"}
"""What a local round can be about, and the dataset that it names on chain."""

DIGITS = Path(data.__file__).parent / "digits"
"""The handwritten digits that ship with the package."""

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
# Where torchvision keeps its downloads below the folder that it was given.
_PLACES = (".", "raw", "MNIST/raw", "FashionMNIST/raw")
_PREFIXES = {"train": ("train",), "test": ("t10k", "test")}
_FILE = "datasets.json"


def on_chain_name(name: str) -> str:
    """The dataset on chain for a round about `name`.

    Raises:
        SettingsError: local rounds can't be about that.
    """
    key = dataset_key(name)
    if key not in ON_CHAIN:
        raise SettingsError(
            f"local rounds can't be about {name!r}", hint=f"choose one of {', '.join(ON_CHAIN)}"
        )
    return ON_CHAIN[key]


def check_data(name: str, folder: Path | None) -> None:
    """Only `digits` ships with the package; the others need a folder with their IDX files.

    Raises:
        SettingsError: unknown data, no folder where one is needed, or no held-out split in it.
    """
    if folder is None and on_chain_name(name) != "Custom":
        raise SettingsError(
            f"rounds about {name} need the folder of its data",
            hint="give --data PATH, the folder with the four IDX files",
        )
    if folder is not None:
        try:
            for kind in (IMAGES, LABELS):
                find_idx(folder, "test", kind)
        except DatasetUnavailable as error:
            raise SettingsError(error.message, hint=error.hint) from error


def remember_data(state: Path, name: str, folder: Path) -> None:
    """From now on all rounds about `name` are scored on the data in `folder`."""
    known = _known(state)
    known[dataset_key(on_chain_name(name))] = str(folder.resolve())
    write_atomic(state / _FILE, json.dumps(known, indent=2).encode())


def data_folder(state: Path, key: str) -> Path:
    """The folder behind the on-chain dataset `key`; ``custom`` is `digits` unless told otherwise.

    Raises:
        DatasetUnavailable: nobody has told where such data is.
    """
    known = _known(state)
    if key in known:
        return Path(known[key])
    if key == "custom":
        return DIGITS
    raise DatasetUnavailable(f"this local network has no data for {key} rounds")


def find_idx(folder: Path, split: str, kind: str) -> Path:
    """An IDX file of the ``train`` or ``test`` split, plain or gzipped, flat or as torchvision
    puts it.

    Raises:
        DatasetUnavailable: there is none.
    """
    for place, prefix, suffix in product(_PLACES, _PREFIXES[split], ("", ".gz")):
        path = folder / place / f"{prefix}-{kind}{suffix}"
        if path.is_file():
            return path
    raise DatasetUnavailable(
        f"no {split} {kind} in {folder}",
        hint="give the folder that holds the four IDX files (train-images-idx3-ubyte.gz, ...)",
    )


def _known(state: Path) -> dict[str, str]:
    path = state / _FILE
    return dict(json.loads(path.read_bytes())) if path.exists() else {}
