"""Alarms reach people: by webhook, command and desktop, never with a secret, never in the way."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from decloud_trainer.errors import DecloudError, NetworkError
from decloud_trainer.watching import notices
from decloud_trainer.watching.notices import (
    Command,
    Desktop,
    Notice,
    Notifier,
    Webhook,
    channels_of,
)

NOTICE = Notice("alarm", "low_balance", "the wallet holds 0 SOL", "WaLLet", "devnet", 1.0)


@asynccontextmanager
async def a_hook(*statuses: int) -> AsyncIterator[tuple[str, list[Any]]]:
    """URL of a server that answers with these, the last one for ever, and what it was sent."""
    got: list[Any] = []
    answers = list(statuses)

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        status = answers.pop(0) if len(answers) > 1 else answers[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_post("/hooks/s3cret", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/s3cret", got
    finally:
        await runner.cleanup()


async def test_a_webhook_gets_the_alarm_as_json() -> None:
    """With the fields that chat services show, and those that a script would read."""
    async with a_hook(204) as (url, got):
        await Webhook(url).send(NOTICE)
    (body,) = got
    assert body["text"] == body["content"]
    assert body["text"] == "DECLOUD trainer: low balance: the wallet holds 0 SOL"
    assert body["event"] == "alarm"
    assert body["alarm"] == "low_balance"
    assert (body["wallet"], body["network"], body["at"]) == ("WaLLet", "devnet", 1.0)


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_what_a_webhook_refuses_is_an_error_without_its_path(status: int) -> None:
    """Its path is the secret; a redirection isn't followed."""
    async with a_hook(status) as (url, got):
        hook = Webhook(url)
        with pytest.raises(NetworkError, match=f"answered {status}") as caught:
            await hook.send(NOTICE)
    assert len(got) == 1
    for text in (str(caught.value), repr(hook), hook.name):
        assert "s3cret" not in text


async def test_a_webhook_that_is_not_there_is_named_by_its_host() -> None:
    """The reason is told, the URL isn't, not even in what caused it."""
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1 can't be reached") as caught:
        await Webhook("http://127.0.0.1:1/hooks/s3cret").send(NOTICE)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def a_script(folder: Path, text: str) -> Path:
    path = folder / "tell"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o700)
    return path


async def test_a_command_gets_the_message_on_its_standard_input(tmp_path: Path) -> None:
    """Its words are the user's, without a shell; of the environment, only what it needs."""
    script = a_script(
        tmp_path,
        "import json, os, sys\n"
        "found = {'words': sys.argv[1:], 'text': sys.stdin.read(), 'names': list(os.environ)}\n"
        f"json.dump(found, open({str(tmp_path / 'got')!r}, 'w'))\n",
    )
    environ = {"PATH": "/usr/bin:/bin", "PINATA_JWT": "s3cret", "DECLOUD_PRIVATE_KEY": "s3cret"}
    await Command([str(script), "$HOME; ls", "a b"], environ).send(NOTICE)
    got = json.loads((tmp_path / "got").read_text())
    assert got["words"] == ["$HOME; ls", "a b"]
    assert got["text"] == "DECLOUD trainer: low balance\n\nthe wallet holds 0 SOL\n"
    assert not {"PINATA_JWT", "DECLOUD_PRIVATE_KEY"} & set(got["names"])


async def test_a_command_that_fails_is_named_with_its_exit_code(tmp_path: Path) -> None:
    """However much it says, and whether it reads the message or not."""
    script = a_script(tmp_path, "import sys\nsys.stderr.write('x' * 200_000)\nsys.exit(3)\n")
    with pytest.raises(DecloudError) as caught:
        await Command([str(script)], {}).send(NOTICE)
    assert str(caught.value) == "the command tell failed with exit code 3"


async def test_a_command_that_is_not_there_says_so() -> None:
    """With the setting to look at."""
    with pytest.raises(DecloudError, match="No such file") as caught:
        await Command(["/nowhere/tell"], {}).send(NOTICE)
    assert "notify_command" in caught.value.hint


def is_gone(noted: Path) -> bool:
    """Whether the process of that number has ended, or was never begun."""
    number = noted.read_text() if noted.exists() else ""
    stat = Path(f"/proc/{number or 'none'}/stat")
    return not stat.exists() or stat.read_text().split()[2] in "ZX"


async def test_a_command_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon waits for no one for ever."""
    monkeypatch.setattr(notices, "SEND_S", 0.3)
    script = a_script(
        tmp_path,
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{child.pid}}')\n"
        "time.sleep(60)\n",
    )
    with pytest.raises(DecloudError, match="was ended"):
        await Command([str(script)], {}).send(NOTICE)
    assert is_gone(tmp_path / "pids")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has osascript")
async def test_the_desktop_is_told_by_its_own_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text is no option and no markup to it; without the tool it is said what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DecloudError, match="nothing here") as caught:
        await Desktop().send(NOTICE)
    assert "libnotify" in caught.value.hint
    got = tmp_path / "got"
    script = a_script(tmp_path, f"import sys\nopen({str(got)!r}, 'w').write(repr(sys.argv[1:]))\n")
    script.rename(tmp_path / "notify-send")
    await Desktop().send(Notice("alarm", "losing", "<b>--help</b>", "", "", 0.0))
    assert "'--', 'DECLOUD trainer: losing', '&lt;b&gt;--help&lt;/b&gt;'" in got.read_text()


async def test_a_command_may_leave_something_behind(tmp_path: Path) -> None:
    """Its own exit code counts."""
    sleeper = f"'{sys.executable}', '-c', 'import time; time.sleep(60)'"
    script = a_script(tmp_path, f"import subprocess\nsubprocess.Popen([{sleeper}])\n")
    await Command([str(script)], {}).send(NOTICE)


async def test_what_does_not_arrive_is_kept_and_sent_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a line that is down only the first failure is logged; the other ways go on."""
    second = Notice("alarm_over", "low_balance", "no longer so", "", "", 2.0)
    async with a_hook(500, 500, 200) as (url, got), a_hook(200) as (other, got_there):
        notifier = Notifier([Webhook(url), Webhook(other)])
        await notifier.tell([NOTICE])
        await notifier.tell([second])
        assert [body["event"] for body in got_there] == ["alarm", "alarm_over"]
        await notifier.tell()
        assert [body["event"] for body in got[2:]] == ["alarm", "alarm_over"]
    assert len([r for r in caplog.records if "tried again" in r.message]) == 1


def test_only_what_is_configured_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing by default."""
    assert channels_of("", (), desktop=False) == []
    found = channels_of("http://127.0.0.1/x", ("true",), desktop=True)
    assert [type(channel) for channel in found] == [Webhook, Command, Desktop]
    assert os.path.basename(found[1].name) == "the command true"
