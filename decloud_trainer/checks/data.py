"""Which datasets can be trained here, where they come from, and what is there of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from decloud_trainer.chain import v1
from decloud_trainer.checks.model import Check, failed, passed, warned
from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.names import dataset_key
from decloud_trainer.plans import data_specs, datasets_dir
from decloud_trainer.settings import Settings
from decloud_trainer.training.data.datasets import Kept, find, kept
from decloud_trainer.training.data.nearly import reasons
from decloud_trainer.training.data.published import DOWNLOADED, PACKAGED
from decloud_trainer.training.data.samples import Found
from decloud_trainer.training.spec import DataSpec


@dataclass(frozen=True, slots=True)
class LocalData:
    """One dataset as it stands on this machine.

    Attributes:
        key: our spelling; `name` is the network's, empty for one that it doesn't know.
        index: its number on the network.
        trained_on: the key of the data that a mapping puts in its place, or `key`.
        source: where that data comes from: ``shipped``, ``download``, ``path`` or, where there is
            no way to have it, empty.
        path: the user's folder, for ``path``.
        found: what is there, None for nothing.
        problem: why what is there can't be used.
        downloaded_bytes, decoded_bytes: what our own copies take on the disk.
    """

    key: str
    name: str
    index: int | None
    trained_on: str
    source: str
    path: str
    found: Found | None
    problem: str
    downloaded_bytes: int = 0
    decoded_bytes: int = 0

    @property
    def kept_bytes(self) -> int:
        return self.downloaded_bytes + self.decoded_bytes

    @property
    def is_ready(self) -> bool:
        return self.found is not None

    @property
    def is_trainable(self) -> bool:
        """Ready, or to be had by the daemon itself when a round needs it."""
        return self.is_ready or (self.source == "download" and not self.problem)

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.key,
            "name": self.name,
            "index": self.index,
            "trainable": self.is_trainable,
            "ready": self.is_ready,
            "trained_on": self.trained_on,
            "source": self.source,
            "path": self.path,
            "problem": self.problem,
            "downloaded_bytes": self.downloaded_bytes,
            "decoded_bytes": self.decoded_bytes,
        } | ({} if self.found is None else asdict(self.found))


def network_names() -> dict[str, str]:
    """Key -> the network's spelling, in the network's order."""
    return {dataset_key(name): name for name in v1.DATASETS}


def all_data(settings: Settings) -> list[LocalData]:
    """Every dataset of the network, then those that only this machine knows."""
    own = {*data_specs(settings), *settings.dataset_mappings, *settings.dataset_paths}
    keys = [*network_names(), *sorted(own - set(network_names()))]
    there = kept(datasets_dir())
    return [_with_sizes(local_data(settings, key), there) for key in keys]


def _with_sizes(local: LocalData, there: Mapping[str, Kept]) -> LocalData:
    own = there.get(local.key)
    if own is None:
        return local
    return replace(local, downloaded_bytes=own.downloaded, decoded_bytes=own.decoded)


def local_data(settings: Settings, name: str) -> LocalData:
    """One dataset, in any spelling."""
    key = dataset_key(name)
    names = network_names()
    trained_on = settings.dataset_mappings.get(key, key)
    spec = data_spec(settings, trained_on)
    found, problem = None, ""
    if spec is not None:
        try:
            found = find(spec)
        except DatasetUnavailable as error:
            problem = error.message
        if found is None and spec.path is not None:
            why = "; ".join(reasons(spec.path))
            problem = problem or f"{spec.path} holds no dataset that can be read: {why}"
    return LocalData(
        key=key,
        name=names.get(key, ""),
        index=list(names).index(key) if key in names else None,
        trained_on=trained_on,
        source=_source(spec),
        path=str(spec.path) if spec is not None and spec.path else "",
        found=found,
        problem=problem,
    )


def data_spec(settings: Settings, key: str) -> DataSpec | None:
    """The training core's spec; None for a dataset that can't be had here."""
    spec = data_specs(settings).get(key)
    return None if spec is None else DataSpec.from_json(spec)


def _source(spec: DataSpec | None) -> str:
    if spec is None:
        return ""
    if spec.path is not None:
        return "path"
    return "shipped" if spec.name in PACKAGED else "download" if spec.name in DOWNLOADED else ""


def data_checks(settings: Settings) -> list[Check]:
    """Is each dataset of the configuration ready? Without a choice there: all that could be."""
    chosen = settings.datasets or tuple(
        dict.fromkeys([*data_specs(settings), *settings.dataset_mappings])
    )
    return [data_check(settings, name) for name in chosen]


def data_check(settings: Settings, name: str) -> Check:
    local = local_data(settings, name)
    title = f"dataset {local.key}"
    if local.found is not None:
        instead = f" of {local.trained_on}" if local.trained_on != local.key else ""
        text = f"{local.found.train:,} training and {local.found.test:,} test samples{instead}"
        numbers = {"train": local.found.train, "test": local.found.test}
        if not local.found.train:
            return failed(title, f"{text}: nothing to train on", "add the train files", **numbers)
        if not local.found.test:
            fix = "add the test files: without them the score can't be previewed"
            return warned(title, text, fix, **numbers)
        return passed(title, text, **numbers)
    if local.problem:
        fix = f"decloud-trainer config --add-path {local.trained_on}:/path/to/its/folder"
        return failed(title, local.problem, fix)
    if local.source == "download":
        return warned(
            title,
            "not here yet: downloaded once a round needs it",
            f"decloud-trainer datasets fetch {local.trained_on}",
        )
    return warned(
        title,
        "no data or loader here: rounds about it are skipped",
        f"decloud-trainer config --add-mapping {local.key}:mnist (train on other data instead), "
        f"or --add-path {local.key}:/path/to/its/folder",
    )
