"""``setup``, answered at a terminal."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from solders.keypair import Keypair
from terminal import run

# A process has Ctrl-C only with a terminal that is its own.
START = (
    "import os, sys; os.login_tty(0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'decloud_trainer', *sys.argv[1:]])"
)


class Terminal:
    """A command at a terminal of 80 columns: what it shows, and what is typed."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
        )
        os.close(theirs)
        self.shown = ""
        self._read_to = 0

    def wait_for(self, text: str) -> None:
        """Until it has shown this, after what was waited for before."""
        until = time.monotonic() + 30
        while text not in self.shown[self._read_to :]:
            assert time.monotonic() < until, f"no {text!r} in {self.shown!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.shown += self._read()
        self._read_to = self.shown.index(text, self._read_to) + len(text)

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question)
        os.write(self._ours, f"{text}\n".encode())

    def leave(self) -> int:
        """Press Ctrl-C until it has ended; its exit code.

        Python misses one that comes just before it reads; people press it again, too.
        """
        os.write(self._ours, b"\x03")
        return self.end(again=b"\x03")

    def end(self, again: bytes = b"") -> int:
        """See it out; its exit code. One that asks a question more is killed."""
        for _ in range(30):
            while select.select([self._ours], [], [], 1.0)[0]:
                text = self._read()
                if not text:
                    os.close(self._ours)
                    return self._process.wait(30)
                self.shown += text
            os.write(self._ours, again)
        self._process.kill()
        raise AssertionError(f"it goes on after {self.shown!r}")

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65_536).decode()
        except OSError:  # Linux's way to say that nobody is at the other end
            return ""


def test_the_wizard_sets_everything_up(own_home: Path) -> None:
    """Its answers are what is stored; a wrong one is asked again; a typed key is never shown."""
    run(
        "config",
        "--set",
        "rpc_url=http://127.0.0.1:9",
        "--set",
        "pinata_api_url=http://127.0.0.1:9",
    )
    key = "5" * 87  # the right alphabet, and no key
    wizard = Terminal("setup")
    wizard.answer("[mainnet-beta]: ", "devnet")
    wizard.answer("Choice [create]: ", "key")
    wizard.answer("Private key (not shown): ", key)
    wizard.wait_for("the setting private_key")
    assert wizard.leave() == 130
    assert key not in wizard.shown

    wizard = Terminal("setup")
    wizard.answer("[mainnet-beta]: ", "devnet")
    wizard.answer("Choice [create]: ", "keep")  # a wallet's balance would be asked of a network
    wizard.answer("[any]: ", "Fashion-MNIST, mnist")
    wizard.answer("Least reward in SOL [0]: ", "lots")
    wizard.answer("Least reward in SOL [0]: ", "0.01")
    wizard.answer("unlimited) [0]: ", "")
    wizard.answer("Epochs per round [1]: ", "2")
    wizard.answer("Rounds at once [1]: ", "")
    wizard.answer("or skip [jwt]: ", "jwt")
    wizard.answer("JWT (not shown): ", "very.secret.jwt")
    assert wizard.end() == 0
    assert "very.secret.jwt" not in wizard.shown
    assert "No private key found" in wizard.shown
    stored = json.loads((own_home / "decloud" / "config.json").read_bytes())
    wanted = {
        "network": "devnet",
        "datasets": ["fashionmnist", "mnist"],
        "min_reward": 0.01,
        "epochs": 2,
        "pinata_jwt": "very.secret.jwt",
    }
    assert wanted.items() <= stored.items()
    assert max(map(len, wizard.shown.splitlines())) <= 80


def test_ctrl_c_changes_nothing(own_home: Path) -> None:
    """Whoever leaves in the middle has the settings and the keys of before."""
    run("config", "--set", "epochs=5")
    before = (own_home / "decloud" / "config.json").read_bytes()
    wizard = Terminal("setup")
    wizard.answer("[mainnet-beta]: ", "localnet")
    wizard.answer("Choice [create]: ", "create")
    wizard.wait_for("[any]: ")
    assert wizard.leave() == 130
    assert "interrupted" in wizard.shown
    assert (own_home / "decloud" / "config.json").read_bytes() == before
    assert not (own_home / "decloud" / "wallet.json").exists()


def test_setup_never_loses_a_key() -> None:
    """A key in the configuration gets a file of its own before another wallet takes its place."""
    keypair = Keypair()
    key, pubkey = str(keypair), str(keypair.pubkey())
    assert run("config", "--set", "private_key=-", stdin=key).code == 0
    done = run("setup", "--non-interactive", "--network", "localnet", "--wallet", "create")
    assert done.code == 0, done.err
    kept = Path(os.environ["DECLOUD_HOME"]) / f"wallet-{pubkey[:8]}.json"
    assert str(kept) in done.out
    assert key not in done.out
    assert kept.stat().st_mode & 0o777 == 0o600
    assert run("--keypair", str(kept), "wallet", "show", "--json").json["address"] == pubkey
