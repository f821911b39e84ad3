"""What an owner of a daemon runs beside it: doctor, datasets, device, version; and systemd."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import base58
import pytest
from solders.keypair import Keypair
from terminal import here, local_network, run, running

from decloud_trainer.cli.main import main
from decloud_trainer.training.data import datasets

JWT = "localnet-jwt"
SETTINGS = {"network": "localnet", "datasets": ["digits", "custom"]}
SETTINGS |= {"dataset_mappings": {"custom": "digits"}}
SHIPPED = Path(datasets.__file__).parent.parent.parent / "data" / "digits"


def test_the_doctor_passes_then_finds_what_is_wrong(own_home: Path) -> None:
    """On a healthy local network it exits with 0; with readable keys, an unknown JWT and a device
    that isn't there with 1, each fix beside it, everything else still checked. No secret is shown,
    and the doctor itself imports no torch."""
    keypair = Keypair()
    secret = base58.b58encode(bytes(keypair)).decode()
    secrets = {"private_key": secret, "pinata_jwt": JWT}
    with local_network("--no-actors"):
        config = own_home / "decloud" / "config.json"
        config.parent.chmod(0o700)
        config.touch(0o600)
        config.write_text(json.dumps(SETTINGS | secrets))
        assert main(["localnet", "airdrop", str(keypair.pubkey()), "1"]) == 0
        assert main(["localnet", "round"]) == 0
        code = (
            "import sys\n"
            "from decloud_trainer.cli.main import main\n"
            "code = main(['doctor', '--json'])\n"
            "print('torch' in sys.modules)\n"
            "sys.exit(code)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        report, imported = done.stdout.splitlines()
        found = json.loads(report)
        assert (done.returncode, imported, found["FAIL"]) == (0, "False", 0), done.stdout
        checks = {check["name"]: check for check in found["checks"]}
        assert checks["wallet"]["text"].startswith(str(keypair.pubkey()))
        assert checks["device"]["samples_per_s"] > 0
        assert checks["balance"]["balance_lamports"] == 10**9
        assert [name for name in checks if name.startswith("gateway 127.0.0.1:")]
        assert secret not in done.stdout + done.stderr

        sick = {"pinata_jwt": "s3cret-jwt", "device": "mps" if sys.platform == "linux" else "cuda"}
        config.write_text(json.dumps(SETTINGS | secrets | sick))
        config.chmod(0o644)
        done = here("doctor")
        assert done.code == 1
        lines = done.out.splitlines()
        assert f"fix: chmod 600 {config}" in done.out
        failed = [line.split()[1] for line in lines if line.startswith("FAIL")]
        assert failed == ["file", "pin", "device"]
        assert lines[-1].endswith("3 failed")
        assert secret not in done.out + done.err
        assert "s3cret-jwt" not in done.out + done.err


def test_the_doctor_survives_a_broken_configuration(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is wrong with it, and what couldn't be checked."""
    home = own_home / "decloud"
    home.mkdir(mode=0o700)
    (home / "config.json").write_text('{"epochs": "many"}')
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  configuration" in told
    assert "epochs must be a whole number" in told
    assert "PASS  python" in told


def test_systemd_is_told_by_a_running_daemon(own_home: Path, tmp_path: Path) -> None:
    """READY=1 once it listens, WATCHDOG=1 again and again, STOPPING=1 after SIGTERM."""
    with local_network("--no-actors"), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        words = ["--non-interactive", "--network", "localnet", "--wallet", "create"]
        assert main(["setup", *words]) == 0
        address = str(tmp_path / "notify")
        systemd.bind(address)
        systemd.settimeout(20)
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
        with running("start", "--json", env=env) as daemon:
            heard = [systemd.recv(200).decode() for _ in range(3)]
            assert heard[0] == "READY=1\nSTATUS=listening for rounds on localnet"
            assert heard[1:] == ["WATCHDOG=1", "WATCHDOG=1"]
            done = daemon.end(signal.SIGTERM)
            assert done.code == 0, done.err
            while (last := systemd.recv(200).decode()) == "WATCHDOG=1":
                pass
            assert last == "STOPPING=1"


def test_datasets_are_listed_checked_and_fetched(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every dataset of the network is known; a folder of one's own is described, taken into use,
    and made ready."""

    def told(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    listed = {row["dataset"]: row for row in json.loads(told("datasets", "list", "--json"))}
    assert len([row for row in listed.values() if row["index"] is not None]) == 99
    assert listed["digits"]["ready"]
    assert (
        listed["mnist"] | {"trainable": True, "ready": False, "source": "download"}
        == (listed["mnist"])
    )
    assert not listed["food101"]["trainable"]
    assert "96 more" not in told("datasets", "list", "--all")

    assert "1,347 samples" in told("datasets", "check", str(SHIPPED))
    told("config", "--add-path", f"Emnist:{SHIPPED}")
    told("config", "--add-mapping", "custom:emnist")
    assert json.loads(told("datasets", "check", "EMNIST", "--json"))["test"] == 450
    assert "emnist is ready: 1,347 training and 450 test samples" in told(
        "datasets", "fetch", "custom"
    )
    assert f"emnist ({SHIPPED})" in told("datasets", "list")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("check", "food101"), "no data and no loader for food101", "--add-path food101:"),
        (("fetch", "food101"), "no data and no loader for food101", "--add-mapping food101:"),
        (("check", "mnist"), "mnist was not downloaded yet", "datasets fetch mnist"),
        (("check", "/nonexistent"), "/nonexistent holds no", "train-images-idx3-ubyte"),
    ],
)
def test_data_that_is_not_here_is_explained(
    words: tuple[str, ...], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the documented words, and the way to have it."""
    assert main(["datasets", *words]) == 1
    told = capsys.readouterr().err
    assert "error: Dataset not found: " in told
    assert message in told
    assert hint in told


def test_the_device_is_measured_as_it_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    """Threads and device of the settings or the options; one that isn't there is exit code 2."""
    assert main(["device", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["threads"], found["settings"]) == (1, {"device": "auto", "threads": 1})
    assert found["device"] in ("cpu", "cuda:0", "mps")
    assert found["samples_per_s"] > 0
    assert main(["device", "--device", "tpu"]) == 2
    assert "must be one of auto, cpu, cuda, mps" in capsys.readouterr().err


def test_version_names_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON, from the packages' own metadata."""
    assert main(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("torch", "torchvision", "solana", "solders"):
        assert found[name] == metadata.version(name)
    assert found["python"] == sys.version.split()[0]
    assert main(["version"]) == 0
    assert "decloud-trainer: " in capsys.readouterr().out


def test_helps_are_light() -> None:
    """The help of every one of these commands imports no library that takes its time."""
    words = ["doctor", "service", "service install", "datasets", "datasets list", "device"]
    code = (
        "import sys, contextlib, io\n"
        "from decloud_trainer.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    for words in {[*words, 'version']!r}:\n"
        "        assert main([*words.split(), '--help']) == 0\n"
        "heavy = ['torch', 'torchvision', 'solders', 'solana', 'aiohttp', 'requests', 'numpy']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_bench_compares_our_loop_with_a_plain_one_and_the_ceiling() -> None:
    """All three are measured here and now, and the ratios are theirs."""
    found = run("bench", "--quick", "--json").json
    rates = found["rates"]
    assert set(rates) == {"plain", "ours", "ceiling"}
    assert found["ratio_to_plain"] == pytest.approx(rates["ours"] / rates["plain"], rel=2e-2)
    assert found["ratio_to_ceiling"] == pytest.approx(rates["ours"] / rates["ceiling"], rel=2e-2)
    assert found["artifact_bytes"]["float16"] < found["artifact_bytes"]["float32"]
    assert found["turns"] == 1
