"""``wallet`` and ``config`` as people and scripts use them."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from pathlib import Path
from typing import Any

import base58
import pytest
from localchain import SOL, local_chain
from solders.keypair import Keypair
from terminal import AtTerminal, here, run

from decloud_trainer import presets
from decloud_trainer.errors import SettingsError
from decloud_trainer.settings import TABLE

KEY = Keypair.from_seed(bytes([7] * 32))
AS_BASE58 = base58.b58encode(bytes(KEY)).decode()
AS_JSON = json.dumps(list(bytes(KEY)))
ADDRESS = str(KEY.pubkey())


@pytest.fixture
def file(own_home: Path) -> Path:
    return own_home / "decloud" / "config.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# wallet


def test_a_new_wallet_is_used_from_then_on(file: Path, tmp_path: Path) -> None:
    """It is written for its owner alone, named in the settings, and never overwritten."""
    assert "No private key found" in here.refused("wallet", "show")
    made = here.json("wallet", "new")
    place = Path(made["path"])
    assert made["used"] is True
    assert (place, mode(place)) == (file.parent / "wallet.json", 0o600)
    before = place.read_bytes()
    assert "not overwritten" in here.refused("wallet", "new")
    assert place.read_bytes() == before
    shown = here.json("wallet", "show")
    assert (shown["address"], shown["source"]) == (made["address"], f"file {place}")

    text = here.out("wallet", "new", "--path", str(tmp_path / "deep" / "other.json"))
    assert "Back up" in text
    assert f"the wallet before was {place}" in text
    assert here.json("wallet", "show")["address"] != made["address"]
    assert place.read_bytes() == before


def test_a_key_that_comes_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new wallet isn't used while the environment or the settings hold another key; neither is
    thrown away for it."""
    monkeypatch.setenv("SOLANA_PRIVATE_KEY", AS_BASE58)
    text = here.out("wallet", "new")
    assert "environment SOLANA_PRIVATE_KEY comes first" in text
    assert f"the wallet that is used is still {ADDRESS}" in text
    assert here.json("wallet", "show")["address"] == ADDRESS


@pytest.mark.parametrize(
    "text", [AS_BASE58, AS_JSON, f"\n  {AS_JSON}\n"], ids=["base58", "json", "spaced"]
)
def test_keys_are_imported_from_standard_input(text: str, own_home: Path) -> None:
    """Base58 or a keypair file's list; what is written is a keypair file. Once more is no error."""
    for _ in range(2):
        done = run("wallet", "import", "--json", stdin=text)
        assert done.code == 0, done.err
        assert done.json["address"] == ADDRESS
        assert AS_BASE58 not in done.out + done.err
    place = own_home / "decloud" / "wallet.json"
    assert (place.read_text().strip(), mode(place)) == (AS_JSON, 0o600)
    assert (own_home / "decloud" / "config.json").read_text().count(AS_BASE58) == 0


@pytest.mark.parametrize(
    "text",
    ["", "not a key 0OIl", AS_BASE58[:-9], AS_JSON[:-9], "[1, 2]"],
    ids=["empty", "words", "cut base58", "cut list", "short list"],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str, own_home: Path) -> None:
    """The message says what a key looks like and nothing of what was given; nothing is written."""
    done = run("wallet", "import", stdin=text)
    assert (done.code, done.out) == (2, "")
    assert len(text) < 3 or text.strip()[:6] not in done.err
    assert not (own_home / "decloud" / "wallet.json").exists()
    assert not (own_home / "decloud" / "config.json").exists()


def test_another_wallet_is_never_replaced() -> None:
    """An import onto a file with another key leaves that alone."""
    made = here.json("wallet", "new")
    done = run("wallet", "import", stdin=AS_BASE58)
    assert done.code == 2
    assert "not overwritten" in done.err
    assert here.json("wallet", "show")["address"] == made["address"]


@pytest.mark.parametrize(
    "words",
    [
        ("wallet", "import", AS_BASE58),
        ("wallet", "new", AS_BASE58),
        ("wallet", "export", AS_BASE58),
        ("config", "--set", AS_BASE58),
        ("config", "--set", "private_key", AS_BASE58),
        ("config", "--get", AS_BASE58),
        ("config", "--unset", AS_BASE58),
        ("config", "--add-mapping", AS_BASE58),
        ("config", "--set", f"private_key={AS_BASE58[:-3]}"),
        ("config", "--set", f"epochs={AS_BASE58}"),
        (AS_BASE58,),
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(words: tuple[str, ...]) -> None:
    """Whatever is wrong with a command line, a message never shows a key that stands in it."""
    assert AS_BASE58[:20] not in here.refused(*words)


def test_export_prints_the_key_alone_and_asks_before(own_home: Path) -> None:
    """Both forms can be imported again; a script has to say --yes, and only the key is printed."""
    place = own_home / "id.json"
    place.write_text(AS_JSON)
    place.chmod(0o600)
    here("config", "--set", f"keypair_path={place}")
    for form, text in (("--base58", AS_BASE58), ("--json", AS_JSON)):
        asked = run("wallet", "export", form)
        assert (asked.code, asked.out) == (2, "")
        assert "--yes" in asked.err
        done = run("wallet", "export", form, "--yes")
        assert (done.code, done.out) == (0, f"{text}\n")
        assert f"the secret key of {ADDRESS}" in done.err
    assert run("wallet", "export", "--yes").out == f"{AS_BASE58}\n"


def test_keys_at_a_terminal(at_terminal: AtTerminal) -> None:
    """A typed key isn't echoed; an export waits for a yes."""
    importing = at_terminal("wallet", "import")
    importing.answer("Private key (not shown)", AS_BASE58)
    importing.answer("Passphrase to encrypt the key (empty: none): ", "")
    assert importing.end() == 0
    assert ADDRESS in importing.shown
    assert AS_BASE58 not in importing.shown
    for answer, code in (("n", 130), ("y", 0)):
        exporting = at_terminal("wallet", "export")
        exporting.answer("Print it? [y/N]", answer)
        assert exporting.end() == code
        assert (AS_BASE58 in exporting.shown) is (answer == "y")


async def test_the_balance_comes_from_the_network(own_home: Path) -> None:
    """In SOL for people, in lamports for scripts, with the rounds that it is enough for."""
    async with local_chain() as chain:
        words = ["network=localnet", f"rpc_url={chain.endpoints.rpc_url}"]
        run("config", *(word for value in words for word in ("--set", value)))
        place = own_home / "id.json"
        place.write_text(json.dumps(list(bytes(chain.trainer))))
        options = ("--keypair", str(place), "wallet")
        told = await asyncio.to_thread(run, *options, "balance", "--json")
        assert told.json["balance_lamports"] == 10 * SOL
        assert told.json["rounds_affordable"] > 1000
        shown = await asyncio.to_thread(run, *options, "show", "--balance")
        assert "Balance: 10 SOL" in shown.out
        assert "run `chmod 600" in shown.out


# config


def test_get_prints_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """As --set takes it, in any spelling of the key; a secret is only said to be set."""
    here("config", "--set", "datasets=Fashion-MNIST,agNews", "--set", "max-reward=0.5")
    assert here.out("config", "--get", "datasets") == "fashionmnist,agnews\n"
    assert here.json("config", "--get", "MAX-REWARD") == {
        "key": "max_reward",
        "value": 0.5,
        "source": "file",
    }
    assert here.out("config", "--get", "referrer") == "\n"
    monkeypatch.setenv("PINATA_JWT", "very.secret.jwt")
    assert here.out("config", "--get", "pinata_jwt") == "(set)\n"
    assert "did you mean" in here.refused("config", "--get", "datsets")


def test_unset_goes_back_to_the_default(file: Path) -> None:
    """One or several; what isn't set or unknown to this version is no trouble, a typing error is,
    and then nothing is changed."""
    here("config", "--set", "epochs=4", "--set", "batch_size=8")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"of_next_year": 1}))
    assert "did you mean" in here.refused("config", "--unset", "epochs", "--unset", "batch_siz")
    assert here.json("config", "--get", "epochs")["value"] == 4
    told = here.out("config", "--unset", "epochs", "--unset", "seed", "--unset", "of_next_year")
    assert "epochs is unset; seed was not set" in told
    assert json.loads(file.read_text()) == {"batch_size": 8}
    assert here.json("config", "--get", "epochs") == {
        "key": "epochs",
        "value": TABLE["epochs"].default,
        "source": "default",
    }


def test_mappings_lead_to_what_can_be_trained() -> None:
    """Any name may be mapped, in any spelling; an unknown target is refused and what there is
    gets named."""
    here("config", "--add-mapping", "proprietary_data:M-nist")
    assert here.json("config", "--get", "dataset_mappings")["value"] == {"proprietarydata": "mnist"}
    refused = here.refused("config", "--add-mapping", "custom:mmnist")
    assert "mmnist can't be trained here" in refused
    assert "can be trained: agnews, breastcancer, cifar10, cifar100, diabetes, digits" in refused
    assert "mmnist" in here.refused("config", "--set", "dataset_mappings=custom:mmnist")
    code, _, err = here("config", "--add-mapping", "custom:mmnist", "--force")
    assert (code, "skipped until" in err) == (0, True)
    here("config", "--remove-mapping", "Proprietary-Data", "--remove-mapping", "custom")
    assert here.json("config", "--get", "dataset_mappings")["value"] == {}
    assert "there is none at all" in here.refused("config", "--remove-mapping", "custom")


def test_the_documented_mappings_are_taken() -> None:
    """A dataset that a preset of ours names may always be a target; what it lacks is said."""
    code, _, err = here("config", "--add-mapping", "custom:cifar10")
    assert code == 0, err
    assert here.json("config", "--get", "dataset_mappings")["value"] == {"custom": "cifar10"}


def test_own_data_makes_a_target_trainable() -> None:
    """A path and a mapping to it can be given in one go."""
    digits = Path(presets.__file__).parent / "data" / "digits"
    code, _, err = here(
        "config", "--add-path", f"My_Digits:{digits}", "--add-mapping", "custom:my-digits"
    )
    assert code == 0
    assert "1,347 training and 450 test samples" in err
    values = here.json("config", "--show")["settings"]
    assert values["dataset_paths"] == {"mydigits": str(digits)}
    assert values["dataset_mappings"] == {"custom": "mydigits"}


def test_paths_may_start_at_home_or_be_absent(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~`` is looked up and kept, a relative path becomes absolute, and a disk that isn't mounted
    needs --force."""
    digits = Path(presets.__file__).parent / "data" / "digits"
    (own_home / "data").symlink_to(digits)
    monkeypatch.chdir(own_home)
    assert here("config", "--add-path", "mnist:~/data").code == 0
    assert here("config", "--add-path", "kmnist:data").code == 0
    refused = here.refused("config", "--add-path", "emnist:/mnt/disk", code=1)
    assert "--force" in refused
    code, _, err = here("config", "--add-path", "emnist:/mnt/disk", "--force")
    assert (code, "/mnt/disk doesn't exist" in err) == (0, True)
    assert here.json("config", "--get", "dataset_paths")["value"] == {
        "mnist": "~/data",
        "kmnist": str(own_home / "data"),
        "emnist": "/mnt/disk",
    }
    here("config", "--remove-path", "KMNIST", "--remove-path", "emnist")
    assert list(here.json("config", "--get", "dataset_paths")["value"]) == ["mnist"]
    here("config", "--set", "keypair_path=id.json")
    assert here.out("config", "--get", "keypair_path") == f"{own_home / 'id.json'}\n"


def test_the_file_can_be_found(file: Path) -> None:
    """--path prints where it is, whether it is there or not."""
    assert here.out("config", "--path") == f"{file}\n"
    assert not file.exists()


# config --preset


def test_a_preset_is_copied_and_its_name_remembered() -> None:
    """A later --set wins over its value; the name stays for the banner."""
    here("config", "--preset", "quick-test", "--set", "batch_size=8")
    here("config", "--set", "max_batches=7")
    values = here.json("config", "--show")["settings"]
    assert (values["preset"], values["max_batches"], values["batch_size"]) == ("quick-test", 7, 8)
    assert values["datasets"] == ["cifar10", "mnist"]


def test_presets_are_listed_with_what_they_do_here() -> None:
    """For each: what would be trained on this machine and how its data is had, and what skipped."""
    here("config", "--add-mapping", "imdb:digits", "--preset", "text-all")
    listed = {view["name"]: view for view in here.json("config", "--preset", "list")}
    assert len(listed) == 7
    later = "is downloaded when needed"
    assert listed["text-all"]["trains"] == {"imdb": "on digits", "sst2": later, "agnews": later}
    assert listed["text-all"]["skips"] == []
    assert listed["text-all"]["applied"] is True
    assert listed["image-small"]["trains"]["mnist"] == "is downloaded when needed"
    assert listed["high-reward"]["trains"]["digits"] == "ready"
    assert listed["high-reward"]["terms"].startswith("from 0.1 SOL")
    text = here.out("config", "--preset", "list")
    assert "text-all (applied)" in text
    assert "at most 50 batches each" in text


def test_own_presets_are_saved_listed_and_applied(file: Path) -> None:
    """They hold what the settings say of rounds and training, and nothing of keys or networks."""
    here("config", "--set", "datasets=mnist,digits", "--set", "min_reward=0.02")
    here("config", "--set", "auto_claim=false", "--set", "network=devnet")
    here("config", "--set", "pinata_jwt=very.secret.jwt", "--set", "epochs=6")
    here.out("config", "--preset", "save", "evenings")
    place = file.parent / "presets" / "evenings.json"
    assert mode(place) == 0o600
    assert json.loads(place.read_text())["settings"] == {
        "datasets": ["mnist", "digits"],
        "min_reward": 0.02,
        "max_reward": 0.0,
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 0.001,
        "max_batches": 0,
        "auto_claim": False,
    }
    assert "--force" in here.refused("config", "--preset", "save", "evenings")
    here("config", "--reset", "--yes")
    assert "evenings (own)" in here.out("config", "--preset", "list")
    here.out("config", "--preset", "evenings")
    assert here.json("config", "--get", "epochs")["value"] == 6
    here("config", "--set", "epochs=7")
    here.out("config", "--preset", "save", "evenings", "--force")
    assert presets.load("evenings").values["epochs"] == 7


@pytest.mark.parametrize("name", ["image-all", "list", "save", "../evil", "Loud", "", "x" * 41])
def test_some_names_are_not_for_own_presets(name: str) -> None:
    """Those of this program's presets, its words, and what is no plain file name."""
    assert here("config", "--preset", "save", name).code == 2


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"settings": 1}',
        '{"settings": {"epochs": 0}}',
        '{"settings": {"nonsense": 0}}',
        '{"settings": {"private_key": "abc"}}',
        '{"settings": {"preset": "abc"}}',
    ],
)
def test_a_broken_preset_of_ones_own_harms_no_other(content: str, file: Path) -> None:
    """Using it is refused with its file's or its own name; the list shows it with its problem."""
    folder = file.parent / "presets"
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text(content)
    with pytest.raises(SettingsError, match="mine"):
        presets.load("mine")
    assert here("config", "--preset", "mine").code == 2
    listed = {view["name"]: view for view in here.json("config", "--preset", "list")}
    assert "mine" in listed["mine"]["problem"]
    assert listed["image-all"]["problem"] == ""


# config --edit


def editor(tmp_path: Path, body: str) -> str:
    """An editor that does this to `path`."""
    script = tmp_path / "editor.py"
    script.write_text(f"import os, pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{body}\n")
    return f"{sys.executable} {script}"


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``config --edit`` with an editor that does that."""

    def edit(body: str) -> tuple[int, str, str]:
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", editor(tmp_path, body))
        return here("config", "--edit")

    return edit


def test_an_edited_file_takes_the_place_of_the_old_one(edited: Any, file: Path) -> None:
    """What the editor left is what is stored, with the mode of a file with secrets; unchanged is
    unchanged, and no copy is left."""
    code, out, _ = edited('path.write_text(\'{"epochs": 4, "of_next_year": 1}\')')
    assert (code, "saved" in out) == (0, True)
    assert json.loads(file.read_text()) == {"epochs": 4, "of_next_year": 1}
    assert mode(file) == 0o600
    code, out, _ = edited("")
    assert (code, "nothing was changed" in out) == (0, True)
    assert {entry.name for entry in file.parent.iterdir()} == {"config.json", "config.lock"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"epochs": 4,}', "not valid JSON"),
        ("[1]", "one JSON object"),
        ('{"epochs": 0}', "must be a whole number"),
        ('{"min_reward": 2, "max_reward": 1}', "max_reward is below min_reward"),
        ('{"private_key": "abc"}', "no Solana key"),
    ],
)
def test_a_broken_edit_changes_nothing_and_is_kept(
    text: str, reason: str, edited: Any, file: Path
) -> None:
    """The reason is said, the old file stays, and what was typed is in a file that is named."""
    here("config", "--set", "epochs=3")
    before = file.read_bytes()
    code, _, err = edited(f"path.write_text({text!r})")
    assert (code, file.read_bytes()) == (2, before)
    assert reason in err
    copy = Path(err.partition("`mv ")[2].split()[0])
    assert (copy.read_text(), mode(copy)) == (text, 0o600)


def test_two_writers_do_not_undo_each_other(edited: Any, file: Path) -> None:
    """A change that another command made during the editing isn't lost."""
    here("config", "--set", "epochs=3")
    code, _, err = edited(
        "home = path.parent / 'config.json'\n"
        "home.write_text('{\"epochs\": 9}')\n"
        "path.write_text('{\"epochs\": 4}')"
    )
    assert code == 2
    assert "was changed by another program" in err
    assert json.loads(file.read_text()) == {"epochs": 9}


def test_an_editor_gets_no_secrets_and_may_fail(
    edited: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys in the environment stay out of its own; without an editor there is a hint."""
    monkeypatch.setenv("DECLOUD_PRIVATE_KEY", AS_BASE58)
    monkeypatch.setenv("PINATA_JWT", "very.secret.jwt")
    code, _, err = edited(
        "bad = [name for name in os.environ if name in ('DECLOUD_PRIVATE_KEY', 'PINATA_JWT')]\n"
        "sys.exit(3 if bad else 4)"
    )
    assert (code, "exit code 4" in err) == (2, True)
    monkeypatch.setenv("VISUAL", "/nowhere/editor --fast")
    assert "export EDITOR" in here.refused("config", "--edit")
    assert [entry.name for entry in file.parent.iterdir()] == []


# A configuration of an earlier kit


def test_an_earlier_kits_configuration_is_taken_over_at_the_first_command(file: Path) -> None:
    """Any command does it, says what became of what and where the old file is, and only once."""
    file.parent.mkdir()
    file.write_text(json.dumps({"training_epochs": 5, "network": "devnet", "allow_llm": True}))
    before = file.read_bytes()
    code, out, err = here("config", "--get", "epochs")
    assert (code, out) == (0, "5\n")
    assert "training_epochs is now epochs" in err
    assert (file.parent / "config.json.kit-backup").read_bytes() == before
    assert here("config", "--get", "epochs") == (0, "5\n", "")
