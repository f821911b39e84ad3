"""Every command that the trainer's documentation shows, as it shows it, on one local network.

Round ids, paths and keys are ours; the rest of each line is what a reader would copy.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import base58
import pytest
from processes import descendants, is_gone
from solders.keypair import Keypair
from terminal import COMMAND, Done, here, local_network

from decloud_trainer.chain import v1
from decloud_trainer.localnet.actors.content import Content
from decloud_trainer.localnet.actors.creator import Offer, post_round, temporary_creator
from decloud_trainer.localnet.actors.datasets import DIGITS
from decloud_trainer.localnet.actors.shipped import MODEL
from decloud_trainer.localnet.options import Endpoints
from decloud_trainer.localnet.remote import airdrop

BIN = Path(COMMAND[0]).parent
GIB = 2**30
# The local pin service's published credentials.
API_KEY, SECRET = "localnet-key", "localnet-secret"
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Network:
    endpoints: Endpoints

    def post(self, dataset: str = "Custom", *, sol: float = 0.05, count: int = 1) -> list[int]:
        """Post rounds that name `dataset`, a name on chain; their ids."""
        where = self.endpoints
        creator = temporary_creator(where.rpc_url, where.generation)
        content = Content(
            gateway_url=where.gateway_url,
            pin_api_url=where.pin_api_url,
            pin_upload_url=where.pin_upload_url,
            pin_jwt=where.pin_jwt,
        )
        offer = Offer(v1.DATASETS.index(dataset), round(sol * 10**9), MODEL)
        return [post_round(creator, content, offer).round_id for _ in range(count)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network whose validator starts each round as soon as one trainer is in it."""
    home = tmp_path_factory.mktemp("network")
    state = tmp_path_factory.mktemp("state")
    # What rounds about these names are scored on.
    known = {"cifar10": str(DIGITS), "mnist": str(DIGITS)}
    (state / "datasets.json").write_text(json.dumps(known))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECLOUD_HOME", str(home))
        options = ("--rounds", "0", "--competitors", "none", "--state", str(state))
        with local_network(*options):
            yield Network(Endpoints.load(home / "localnet.json"))


@pytest.fixture
def keypair(own_home: Path) -> Keypair:
    """The Solana CLI's key, where it keeps it."""
    keypair = Keypair()
    path = own_home / ".config" / "solana" / "id.json"
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    path.write_text(json.dumps(list(bytes(keypair))))
    return keypair


@pytest.fixture
def home(own_home: Path, network: Network) -> Path:
    """A home with settings for the network, and nothing else."""
    home = own_home / "decloud"
    home.mkdir(mode=0o700)
    where = network.endpoints
    settings = {
        "network": "localnet",
        "rpc_url": where.rpc_url,
        "ws_url": where.ws_url,
        "gateways": [where.gateway_url],
        "pinata_api_url": where.pin_api_url,
        "pinata_upload_url": where.pin_upload_url,
    }
    (home / "config.json").touch(0o600)
    (home / "config.json").write_text(json.dumps(settings))
    return home


@pytest.fixture
def funded(home: Path, network: Network, keypair: Keypair) -> str:
    """The address of the Solana CLI's key, with a SOL."""
    airdrop(network.endpoints.rpc_url, str(keypair.pubkey()), 10**9)
    return str(keypair.pubkey())


def shell(line: str, *, stdin: str = "") -> Done:
    """A line as it stands, typed into a shell; the command is the installed one."""
    done = subprocess.run(
        ["bash", "-c", line],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=_environment(),
    )
    return Done(done.returncode, done.stdout, done.stderr)


def works(line: str, *, stdin: str = "") -> str:
    """What a line prints that must not fail."""
    done = shell(line, stdin=stdin)
    assert done.code == 0, (line, done)
    return done.out + done.err


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


class Daemon:
    """A line that starts the daemon, its output in a file."""

    def __init__(self, line: str, folder: Path, *, limit: Callable[[], None] | None = None) -> None:
        self.log = folder / "daemon.out"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(),
                preexec_fn=limit,
            )

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process as process:
            process.kill()

    def wait_for(self, *texts: str) -> str:
        """All that it has printed once these are in it."""
        return wait_for(self.log, *texts, alive=lambda: self.process.poll() is None)

    def end(self, number: int = signal.SIGINT) -> str:
        self.process.send_signal(number)
        assert self.process.wait(30) == 0, self.log.read_text()
        return self.log.read_text()


def wait_for(log: Path, *texts: str, alive: Callable[[], bool] = lambda: True) -> str:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        goes_on = alive()
        shown = log.read_text() if log.exists() else ""
        if all(text in shown for text in texts):
            return shown
        assert goes_on, shown
        time.sleep(0.05)
    raise AssertionError(f"no {texts} in {shown!r}")


def settings_in(home: Path) -> dict[str, object]:
    return dict(json.loads((home / "config.json").read_bytes()))


# Setup, and three ways to give a wallet


def test_setup_asks_for_all_it_configures(own_home: Path, network: Network, funded: str) -> None:
    """Wallet option 1 is the Solana CLI's key; datasets, reward limits and IPFS are asked for."""
    answers = ["localnet", "1", "", "none", "cifar10,mnist", "0.01", "1", "2", ""]
    shown = works("decloud-trainer setup", stdin="\n".join(answers) + "\n")
    assert "is not one of" not in shown
    assert "IPFS" in shown
    assert f"wallet:  {funded}" in shown
    assert "balance: 1 SOL" in shown
    stored = settings_in(own_home / "decloud")
    wanted = {"network": "localnet", "datasets": ["cifar10", "mnist"], "epochs": 2}
    wanted |= {"min_reward": 0.01, "max_reward": 1, "keypair_path": str(_cli_key())}
    assert {key: stored[key] for key in wanted} == wanted


def test_a_wallet_by_each_option(home: Path, funded: str) -> None:
    """A keypair file's path, a key in the configuration, and one in the environment, in the
    order in which they win."""
    works("decloud-trainer config --set keypair_path=~/.config/solana/id.json")
    assert funded in works("decloud-trainer config --show")
    second, third = Keypair(), Keypair()
    told = works(f"decloud-trainer config --set private_key={second}")
    assert "history" in told
    assert str(second.pubkey()) in works("decloud-trainer config --show")
    shown = works(f'export DECLOUD_PRIVATE_KEY="{third}"\ndecloud-trainer config --show')
    assert str(third.pubkey()) in shown
    assert str(third) not in shown


def test_a_key_as_other_tools_print_it(home: Path, keypair: Keypair) -> None:
    """base58 of the keypair file's 64 bytes, which is what the documented script makes."""
    key = base58.b58encode(bytes(json.loads(_cli_key().read_bytes()))).decode()
    works(f"decloud-trainer config --set private_key={key}")
    assert str(keypair.pubkey()) in works("decloud-trainer wallet show")


def _cli_key() -> Path:
    return Path(os.environ["HOME"]) / ".config" / "solana" / "id.json"


# Configuration


def test_settings_by_line(home: Path, tmp_path: Path) -> None:
    """Each documented config line, in the document's order; what it says is then stored."""
    assert "min_reward" in works("decloud-trainer config --show")
    for line in (
        "decloud-trainer config --set epochs=3",
        "decloud-trainer config --set min_reward=0.01",
        "decloud-trainer config --set datasets=cifar10,mnist",
    ):
        works(line)
    stored = settings_in(home)
    assert (stored["epochs"], stored["min_reward"]) == (3, 0.01)
    assert stored["datasets"] == ["cifar10", "mnist"]

    works("decloud-trainer config --preset image-small")
    assert settings_in(home)["datasets"] == ["mnist", "fashionmnist", "cifar10"]
    works("decloud-trainer config --add-mapping custom:cifar10")
    works("decloud-trainer config --add-mapping proprietary_data:mnist")
    works("decloud-trainer config --add-mapping unknown_dataset:cifar10")
    for name, folder in (("cifar10", "my_cifar"), ("mnist", "ml/mnist")):
        path = tmp_path / folder
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(DIGITS)
        assert "1,347 training" in works(f"decloud-trainer config --add-path {name}:{path}")
    stored = settings_in(home)
    assert stored["dataset_mappings"] == {
        "custom": "cifar10",
        "proprietarydata": "mnist",
        "unknowndataset": "cifar10",
    }
    assert stored["dataset_paths"] == {
        "cifar10": str(tmp_path / "my_cifar"),
        "mnist": str(tmp_path / "ml" / "mnist"),
    }
    works("decloud-trainer config --reset", stdin="y\n")
    assert not (home / "config.json").exists()


def test_presets_are_listed_with_their_datasets(home: Path) -> None:
    """The seven documented ones."""
    listed = works("decloud-trainer config --preset list")
    for name, datasets in {
        "image-all": "cifar10, cifar100, mnist, fashionmnist, emnist, kmnist, svhn",
        "image-small": "mnist, fashionmnist, cifar10",
        "text-all": "imdb, sst2, agnews",
        "cifar-only": "cifar10, cifar100",
        "mnist-only": "mnist, fashionmnist, emnist, kmnist",
        "high-reward": "0.1",
        "quick-test": "cifar10, mnist",
    }.items():
        part = listed[listed.index(name) :]
        for word in datasets.split(", "):
            assert word in part, name


def test_pinata_keys_by_environment_and_by_configuration(home: Path, funded: str) -> None:
    """Either way they are what is used: wrong ones in the file are refused at the start, and those
    of the environment win over them."""
    works("decloud-trainer config --set pinata_api_key=WRONG_KEY")
    works("decloud-trainer config --set pinata_secret_key=WRONG_SECRET")
    refused = shell("decloud-trainer start")
    assert refused.code == 1, refused
    assert "WRONG" not in refused.out + refused.err
    exported = f'export PINATA_API_KEY="{API_KEY}"\nexport PINATA_SECRET_KEY="{SECRET}"\n'
    assert "Listening" in works(f"{exported}decloud-trainer start --once")


# Starting


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "decloud-trainer start --preset mnist-only",
            {"Preset": "mnist-only", "Datasets": "mnist, fashionmnist, emnist, kmnist"},
        ),
        (
            "decloud-trainer start --dataset cifar10,mnist --min-reward 0.01",
            {"Preset": "-", "Datasets": "cifar10, mnist", "Min reward": "0.01 SOL"},
        ),
        (
            "decloud-trainer start --dataset cifar10,mnist \\\n  --min-reward 0.01 --epochs 2",
            {"Datasets": "cifar10, mnist", "Min reward": "0.01 SOL", "Epochs": "2"},
        ),
    ],
)
def test_the_banner_tells_what_start_was_given(
    line: str, told: dict[str, str], tmp_path: Path, funded: str
) -> None:
    """It starts, says what it takes, listens until Ctrl-C, and ends well."""
    with Daemon(line, tmp_path) as daemon:
        shown = daemon.wait_for("Listening for rounds", "Ctrl+C")
        daemon.end()
    assert f"Wallet:  {funded} (1 SOL)" in shown
    assert "Network: localnet" in shown
    for name, value in told.items():
        assert f"     {name + ':':<13} {value}\n" in shown


@pytest.mark.slow
def test_start_with_all_options_and_training_beside_it(
    tmp_path: Path, network: Network, funded: str
) -> None:
    """With every option at once it joins what fits the limits, as many as it may, and leaves the
    training and the claiming to the commands, in each of their documented forms."""
    works(f"decloud-trainer config --add-path cifar10:{DIGITS}")
    cheap, dear = network.post("Cifar10", sol=0.005) + network.post("Cifar10", sol=2)
    thorough, quick = network.post("Cifar10", count=2)
    line = (
        "decloud-trainer start \\\n  --preset image-all \\\n  --dataset cifar10 \\\n"
        "  --min-reward 0.01 \\\n  --max-reward 1.0 \\\n  --epochs 2 \\\n  --max-parallel 3 \\\n"
        "  --no-auto-train \\\n  --no-auto-claim"
    )
    with Daemon(line, tmp_path) as daemon:
        shown = daemon.wait_for(*(f"round #{number} joined" for number in (thorough, quick)))
        for words in (
            "Preset:       image-all",
            "Datasets:     cifar10",
            "Min reward:   0.01 SOL",
            "Max reward:   1 SOL",
            "Max parallel: 3",
            "Epochs:       2",
            "Auto-train:   False",
            "Auto-claim:   False",
        ):
            assert words in shown
        both = (
            f"decloud-trainer train {thorough} --epochs 3 &\n"
            f"decloud-trainer train {quick} --max-batches 50 && wait $!"
        )
        works(both)
        shown = daemon.wait_for(f"#{thorough} claimable", f"#{quick} claimable")
        assert f"#{thorough} trained 3 epochs" in shown
        assert f"#{quick} trained 2 epochs" in shown
        assert "claimed" not in shown
        assert "claimed 0.0441 SOL" in works(f"decloud-trainer claim {quick}")
        shown = daemon.end()
    for number in (cheap, dear):
        assert f"#{number} joined" not in shown


# A round by hand


@pytest.mark.slow
def test_full_control_over_each_step(network: Network, home: Path, funded: str) -> None:
    """list, join, train, claim, status; and on the way the three troubles that are documented,
    each said in its phrase and mended with its commands."""
    (number,) = network.post()
    waits = rf"^ *{number} +Waiting(Validator|Trainers) +Custom"
    assert re.search(waits, works("decloud-trainer list"), re.M)
    works("decloud-trainer list --status training")

    refused = shell(f"decloud-trainer join {number}")
    assert refused.code == 1
    assert "Dataset not found" in refused.err
    works(f"decloud-trainer config --add-path cifar10:{DIGITS}")
    works("decloud-trainer config --add-mapping custom:cifar10")
    works(f"decloud-trainer join {number}")

    works("decloud-trainer config --set pinata_api_key=YOUR_KEY")
    works("decloud-trainer config --set pinata_secret_key=YOUR_SECRET")
    refused = shell(f"decloud-trainer train {number} --epochs 2")
    assert refused.code == 1, refused
    assert "Failed to upload gradients" in refused.out + refused.err
    works(f"decloud-trainer config --set pinata_api_key={API_KEY}")
    works(f"decloud-trainer config --set pinata_secret_key={SECRET}")
    assert "submitted" in works(f"decloud-trainer train {number}")

    until = time.monotonic() + PATIENCE_S
    while "Completed" not in here.out("status", str(number)):
        assert time.monotonic() < until
        time.sleep(0.2)  # the validator is at work, and needs the processor
    assert "claimed 0.0441 SOL" in works(f"decloud-trainer claim {number}")
    assert "claimed" in works(f"decloud-trainer status {number}")


def test_no_private_key_found(home: Path) -> None:
    """The phrase stands in the error, and in the configuration that the document has one look at;
    either way to set a wallet mends it."""
    refused = shell("decloud-trainer start")
    assert refused.code == 2
    assert "No private key found" in refused.err
    assert "No private key found" in works("decloud-trainer config --show")
    keypair = Keypair()
    works(f"decloud-trainer config --set private_key={keypair}")
    assert f"Wallet: {keypair.pubkey()}" in works("decloud-trainer config --show")


# Left alone, and small


@pytest.mark.slow
def test_in_the_background_with_its_output_in_a_file(
    tmp_path: Path, network: Network, funded: str
) -> None:
    """Set up once and left with nohup, it earns; its file reads as plain lines, each event with
    its time."""
    works("decloud-trainer config --preset image-all")
    works("decloud-trainer config --set min_reward=0.005")
    works(f"decloud-trainer config --add-path mnist:{DIGITS}")
    (number,) = network.post("Mnist")
    line = "nohup decloud-trainer start > trainer.log 2>&1 &"
    pid = int(works(f"cd {tmp_path}\n{line}\necho $!"))
    try:
        wait_for(tmp_path / "trainer.log", f"round #{number} claimed 0.0441 SOL")
    finally:
        os.kill(pid, signal.SIGTERM)
    assert is_gone(pid)

    text = (tmp_path / "trainer.log").read_bytes().decode()
    assert all(sign.isprintable() for sign in text.replace("\n", ""))
    head, _, events = text.partition("Listening for rounds")
    assert "Preset:       image-all" in head
    assert "Min reward:   0.005 SOL" in head
    lines = [each for each in events.splitlines()[1:] if each]
    assert [each for each in lines if not re.match(r"\[\d\d:\d\d:\d\d\] \S", each)] == []
    states = ("watching", "fetched", "joined", "trained", "pinned", "submitted", "claimable")
    places = [text.index(f"round #{number} {state}") for state in (*states, "claimed")]
    assert places == sorted(places)


@pytest.mark.slow
def test_the_least_memory_is_enough(tmp_path: Path, network: Network, funded: str) -> None:
    """A SimpleCNN round of the quick test earns its reward where no process may hold more than
    4 GiB of data (RLIMIT_DATA, inherited by the training child), and the peak resident memory of
    the daemon and of its largest child (VmHWM of each) are together below 4 GB. The daemon
    itself, which has no PyTorch in it, stays below 150 MB.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (4 * GIB, 4 * GIB))

    works(f"decloud-trainer config --add-path mnist:{DIGITS}")
    (number,) = network.post("Mnist")
    of_children: dict[int, int] = {}
    with Daemon("decloud-trainer start --preset quick-test", tmp_path, limit=limit) as daemon:
        pid, until = daemon.process.pid, time.monotonic() + PATIENCE_S
        while f"round #{number} claimed" not in daemon.log.read_text():
            alive = daemon.process.poll() is None and time.monotonic() < until
            assert alive, daemon.log.read_text()
            for child in descendants(pid):
                of_children[child] = max(of_children.get(child, 0), peak_bytes(child))
            time.sleep(0.05)
        of_daemon = peak_bytes(pid)
        assert "Preset:       quick-test" in daemon.end()
    figures = f"daemon {of_daemon / 1e6:.0f} MB, child {max(of_children.values()) / 1e6:.0f} MB"
    assert of_daemon < 150e6, figures
    assert of_daemon + max(of_children.values()) < 4e9, figures
    print(figures, file=sys.stderr)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    return int(found[1]) * 1024 if found else 0
