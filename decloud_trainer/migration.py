"""Configuration files of the earlier DECLOUD trainer kits, said in this program's terms. Pure.

Two families lie at the same path as ours: the v1 kit (``default_epochs``, ``rules``, ...) and the
v2 kit (``training_epochs``, ``custom_rpc``, ...). What has a counterpart here moves to it; what has
none stays in the file under `KEPT`. Keys of neither family are left where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

from decloud_trainer.names import dataset_key

KEPT = "settings_of_earlier_kit"

V1_RENAMED = {
    "default_epochs": "epochs",
    "default_batch_size": "batch_size",
    "default_learning_rate": "learning_rate",
    "default_max_batches": "max_batches",
}
V2_RENAMED = {
    "training_epochs": "epochs",
    "training_batch_size": "batch_size",
    "max_concurrent_training": "max_concurrent_rounds",
    "custom_rpc": "rpc_url",
}
RENAMED = V1_RENAMED | V2_RENAMED
V1_FILTERS = ("rules", "accept_any", "train_dataset")
V1_UNUSED = ("data_dir", "idl_path", "ipfs_gateway")
V2_UNUSED = ("lighthouse_api_key", "allow_llm", "noise_enabled", "noise_scale")
V2_KEYS = {*V2_RENAMED, *V2_UNUSED}
OLD_KEYS = {*RENAMED, *V1_FILTERS, *V1_UNUSED, *V2_UNUSED}

NETWORKS = {"mainnet": "mainnet-beta", "localhost": "localnet"}
# With no network in its file the v2 kit works on this one.
V2_DEFAULT_NETWORK = "devnet"
_TRAINING = ("epochs", "batch_size", "learning_rate", "max_batches")


@dataclass(frozen=True, slots=True)
class Migrated:
    """Attributes:
    content: what the file should hold now.
    notes: what became of each old key, one sentence each, without any value of a secret.
    """

    content: dict[str, Any]
    notes: tuple[str, ...]


def migrated(
    content: Mapping[str, Any], read_setting: Callable[[str, Any], Any]
) -> Migrated | None:
    """The content of an earlier kit's file in our terms; None if it isn't such a file.

    Args:
        read_setting: a setting's value as our file has it; ValueError says why it can't be.
    """
    if not _is_old(content):
        return None
    work = _Work(dict(content), read_setting)
    work.rename()
    work.take_rules()
    work.take_train_dataset()
    work.keep_the_rest()
    work.mend_values()
    work.mend_network(is_v2=not V2_KEYS.isdisjoint(content))
    if work.kept:
        earlier = content.get(KEPT)
        work.new[KEPT] = (earlier if isinstance(earlier, dict) else {}) | work.kept
    return Migrated(work.new, tuple(work.notes))


def _is_old(content: Mapping[str, Any]) -> bool:
    return (
        not OLD_KEYS.isdisjoint(content)
        or str(content.get("network")) in NETWORKS
        or isinstance(content.get("private_key"), list)
    )


@dataclass
class _Work:
    """One migration under way: `new` is the file to be."""

    new: dict[str, Any]
    read_setting: Callable[[str, Any], Any]
    kept: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keep(self, keys: Iterable[str], why: str) -> None:
        """Put old keys aside; what they said is worth a note only if they said something."""
        kept = {key: self.new.pop(key) for key in keys if key in self.new}
        self.kept |= kept
        said = [key for key, value in kept.items() if value not in (None, "", False, [])]
        if said:
            self.notes.append(f"kept under {KEPT}: {', '.join(said)} ({why})")

    def put(self, key: str, value: Any, origin: str) -> bool:
        """Give a setting of ours a value, if it can have it."""
        try:
            self.new[key] = self.read_setting(key, value)
        except ValueError as error:
            self.notes.append(f"{origin} could not become {key}: it {error}")
            return False
        return True

    def rename(self) -> None:
        for old, key in RENAMED.items():
            value = self.new.get(old)
            if value is None:
                self.new.pop(old, None)  # not set, in these kits
            elif self.new.get(key) is not None:
                self.keep([old], f"{key} is set, too, and holds")
            elif self.put(key, value, old):
                del self.new[old]
                self.notes.append(f"{old} is now {key}")
            else:
                self.kept[old] = self.new.pop(old)

    def take_rules(self) -> None:
        if "rules" not in self.new and "accept_any" not in self.new:
            return
        rules = self.new.get("rules") or []
        accept_any = self.new.get("accept_any") is True
        self.keep(["rules", "accept_any"], "what they said is now in the settings below")
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            self.notes.append("the rules can't be read: look at datasets and min_reward")
            return
        enabled = [rule for rule in rules if rule.get("enabled", True)]
        accepted = [name for rule in enabled for name in _names(rule.get("accept_datasets"))]
        present = _names(self.new.get("datasets"))
        wanted = list(dict.fromkeys(dataset_key(name) for name in (*present, *accepted)))
        open_rule = any(not _names(rule.get("accept_datasets")) for rule in enabled)
        if (accept_any or open_rule) and not present:
            self.put("datasets", [], "accept_any")
        elif wanted:
            self.put("datasets", wanted, "rules")
            self.notes.append(f"datasets is now {', '.join(wanted)}")
        else:
            self.notes.append(
                "no rule accepted any dataset, which here means: any that can be trained; "
                "set datasets if you want fewer"
            )
        for rule in enabled:
            self._stand_ins(rule)
        if enabled:
            self._agreed_training(enabled)
            self._agreed_rewards(enabled)

    def take_train_dataset(self) -> None:
        target = self.new.get("train_dataset")
        names = _names(self.new.get("datasets"))
        if target is None or target == "":
            self.new.pop("train_dataset", None)
        elif isinstance(target, str) and names:
            self._stand_ins({"accept_datasets": names, "train_dataset": target})
            self.keep(["train_dataset"], "dataset_mappings says it now")
        else:
            why = "a mapping needs the name that it is for: config --add-mapping FROM:TO"
            self.keep(["train_dataset"], why)

    def _stand_ins(self, rule: Mapping[str, Any]) -> None:
        """A rule's local dataset and folder as mappings and paths; an earlier rule goes first."""
        names = _names(rule.get("accept_datasets"))
        target, path = rule.get("train_dataset"), rule.get("train_path")
        if isinstance(target, str) and target.strip():
            key = dataset_key(target)
            pairs = {dataset_key(name): key for name in names if dataset_key(name) != key}
            self._add_pairs("dataset_mappings", pairs)
            names = [key]
        if isinstance(path, str) and path.strip():
            self._add_pairs("dataset_paths", {dataset_key(name): path for name in names})

    def _add_pairs(self, key: str, pairs: dict[str, str]) -> None:
        present = self.new.get(key) or {}
        if not isinstance(present, dict):
            return
        known = {dataset_key(name) for name in present}
        added = {name: to for name, to in pairs.items() if name not in known}
        if added and self.put(key, present | added, "rules"):
            shown = ", ".join(f"{name}:{to}" for name, to in added.items())
            self.notes.append(f"{key} now has {shown}")

    def _agreed_training(self, rules: list[dict[str, Any]]) -> None:
        """A rule's own training values, where all rules have the same; here they are for all."""
        for key in _TRAINING:
            values = [rule.get(key) or self.new.get(key) for rule in rules]
            if not any(rule.get(key) for rule in rules):
                continue
            if any(value != values[0] for value in values):
                self.notes.append(f"the rules differ in {key}, which is one setting here: check it")
            elif self.put(key, values[0], "rules"):
                self.notes.append(f"{key} is now {values[0]}, as the rules say")

    def _agreed_rewards(self, rules: list[dict[str, Any]]) -> None:
        """The strictest of the limits: nothing is taken that a rule would have refused."""
        least = [_amount(limits, "min_reward") for limits in (self.new, *rules)]
        most = [_amount(limits, "max_reward") for limits in (self.new, *rules)]
        highest = max(least, key=_number)
        lowest = min((value for value in most if value), key=_number, default=0)
        if highest != least[0] and self.put("min_reward", highest, "rules"):
            self.notes.append(f"min_reward is now {highest}, the highest of the rules'")
        if lowest != most[0]:
            if _number(lowest) < _number(highest):
                self.notes.append("the rules' max_reward is below min_reward, so it is left out")
            elif self.put("max_reward", lowest, "rules"):
                self.notes.append(f"max_reward is now {lowest}, the lowest of the rules'")

    def keep_the_rest(self) -> None:
        self.keep((*V1_UNUSED, *V2_UNUSED), "no meaning here")

    def mend_values(self) -> None:
        key = self.new.get("private_key")
        if isinstance(key, list):
            self.new["private_key"] = str(key)  # a list of numbers; our setting is text
        most = self.new.get("max_reward")
        if isinstance(most, float) and math.isinf(most):
            self.new["max_reward"] = 0

    def mend_network(self, *, is_v2: bool) -> None:
        """Their names for networks, and the public endpoints that they wrote into every file.

        The v1 kit used its rpc_url whatever `network` said. Where the two differ, the one of play
        money holds: nobody's first round with this program shall cost real money unawares."""
        network = self.new.get("network")
        if str(network) in NETWORKS:
            self.new["network"] = network = NETWORKS[str(network)]
            self.notes.append(f"network is now spelled {network}")
        if network is None and is_v2:
            self.new["network"] = network = V2_DEFAULT_NETWORK
            self.notes.append(f"network is now {network}, as that kit took it when it wasn't set")
        public = _public_network(self.new.get("rpc_url"))
        if public and public != (network or "mainnet-beta"):
            chosen = public if network in (None, "mainnet-beta") else network
            self.new["network"] = network = chosen
            self.notes.append(f"network and rpc_url named different networks: {chosen} holds")
        public_urls = [key for key in ("rpc_url", "ws_url") if _public_network(self.new.get(key))]
        self.keep(public_urls, "a network's public endpoints follow from network now")


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.split(",")
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _amount(limits: Mapping[str, Any], key: str) -> Any:
    """SOL as the file has it; 0 for none, for infinity and for what is no amount."""
    value = limits.get(key)
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return 0
    return value if number.is_finite() and number > 0 else 0


def _number(amount: Any) -> Decimal:
    return Decimal(str(amount))


def _public_network(url: Any) -> str:
    """The network whose public endpoint that is; empty if it is none's."""
    try:
        host = (urlsplit(url).hostname or "") if isinstance(url, str) else ""
    except ValueError:
        return ""
    network = host.removeprefix("api.").removesuffix(".solana.com")
    return network if host == f"api.{network}.solana.com" else ""
