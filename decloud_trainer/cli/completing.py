"""What the shell offers at TAB: offline, in a moment, and silent when something is wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from importlib.resources import files

from click import Context, Parameter
from click.shell_completion import CompletionItem

from decloud_trainer.errors import DecloudError

# So many rounds are offered, those first that something happened to last.
ROUNDS_OFFERED = 50
_DATASETS_FROM = "federated_ai_v1_2.json"


def setting_keys(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Settings, each with its help."""
    from decloud_trainer.settings import TABLE

    return [
        CompletionItem(key, help=row.setting.help)
        for key, row in TABLE.items()
        if key.startswith(incomplete.lower().replace("-", "_"))
    ]


def assignments(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """``KEY=``, then the values of settings that have few, and datasets."""
    key, equals, value = incomplete.partition("=")
    if not equals:
        return [
            CompletionItem(f"{item.value}=", help=item.help)
            for item in setting_keys(ctx, param, key)
        ]
    from decloud_trainer.kinds import DATASETS
    from decloud_trainer.settings import TABLE

    row = TABLE.get(key)
    if row is None:
        return []
    if row.setting.kind is DATASETS:
        return [CompletionItem(f"{key}={text}") for text in _lists(value)]
    return _matching((f"{key}={choice}" for choice in row.setting.kind.choices), incomplete)


def preset_names(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Presets, each with its description."""
    from decloud_trainer import presets

    found = []
    with contextlib.suppress(DecloudError):  # one that can't be read: those before it will do
        for name in presets.names():
            if name.startswith(incomplete):
                found.append(CompletionItem(name, help=presets.load(name).description))
    return found


def preset_words(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """What ``config --preset`` takes."""
    words = {"list": "show all presets", "save": "keep the settings as a preset of your own"}
    offered = [CompletionItem(word, help=text) for word, text in words.items()]
    return [
        *(item for item in offered if item.value.startswith(incomplete)),
        *preset_names(ctx, param, incomplete),
    ]


def dataset_names(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """One dataset."""
    return _matching(_datasets(), incomplete)


def dataset_lists(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Datasets separated by commas: the last one is completed."""
    return [CompletionItem(text) for text in _lists(incomplete)]


def networks(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Solana clusters."""
    from decloud_trainer.settings import NETWORKS

    return _matching(NETWORKS, incomplete)


def statuses(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """A round's statuses, as the network's users write them."""
    from decloud_trainer.rounds.model import RoundStatus

    known = [status.value for status in RoundStatus if status is not RoundStatus.UNKNOWN]
    return _matching((name[0].lower() + name[1:] for name in known), incomplete)


def mapping_pairs(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """``FROM:TO``."""
    name, colon, target = incomplete.partition(":")
    if not colon:
        return _matching((f"{known}:" for known in _datasets()), incomplete)
    return _matching((f"{name}:{known}" for known in _datasets()), f"{name}:{target}")


def mapped_names(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Names that have a mapping."""
    return _matching(_configured("dataset_mappings"), incomplete)


def path_names(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Datasets that have a folder."""
    return _matching(_configured("dataset_paths"), incomplete)


def round_ids(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Rounds that the journal knows, the latest first, each with its state."""
    from decloud_trainer.rounds.figures import latest_rounds
    from decloud_trainer.wiring import open_journal

    try:
        with open_journal() as journal:
            known = latest_rounds(journal, ROUNDS_OFFERED) if journal else {}
    except DecloudError:
        return []
    return [
        CompletionItem(str(number), help=state)
        for number, state in known.items()
        if str(number).startswith(incomplete)
    ]


def _matching(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _lists(incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [
        before + comma + name
        for name in _datasets()
        if name.startswith(last.lower()) and name not in taken
    ]


def _datasets() -> list[str]:
    """Keys: those of the user and of this program first, then all that the network knows."""
    from decloud_trainer import presets
    from decloud_trainer.names import dataset_key

    own: list[str] = []
    with contextlib.suppress(DecloudError):
        own = ["digits", *_configured("dataset_paths"), *sorted(presets.named_datasets())]
    text = files("decloud_trainer.chain.idl").joinpath(_DATASETS_FROM).read_text("utf-8")
    types = {kind["name"]: kind["type"] for kind in json.loads(text)["types"]}
    network = [dataset_key(variant["name"]) for variant in types["Dataset"]["variants"]]
    return list(dict.fromkeys([*own, *network]))


def _configured(key: str) -> list[str]:
    from decloud_trainer import config

    try:
        return list(getattr(config.load(environ={}).settings, key))
    except DecloudError:
        return []
