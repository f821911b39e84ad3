"""Sends what people should know to where they are: a webhook, a command, the desktop.

Nothing here may stop the daemon: what can't be sent is kept, tried again at the next look, and
its failure is logged once. Texts go to children by standard input, never by arguments, except for
the desktop's own tools, which take nothing else. Keys stand in none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import logging
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from decloud_trainer import __version__
from decloud_trainer.errors import DecloudError, NetworkError

log = logging.getLogger(__name__)

SEND_S: Final = 20.0
MAX_TEXT: Final = 2000
# Of an answer, which is read only to be done with it.
_MAX_ANSWER_BYTES: Final = 16 * 1024
# While nothing can be sent, so many are kept; the oldest are given up first.
_MOST_KEPT: Final = 20
# What a command of the user's gets of our environment; keys and tokens stay out.
_ALLOWED = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
)
_OSASCRIPT = (
    "on run words\ndisplay notification (item 2 of words) with title (item 1 of words)\nend run"
)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to be told.

    Attributes:
        event: ``alarm``, ``alarm_over`` or ``test``.
        alarm: the alarm's name; empty for a test.
        text: one or more sentences.
        at: unix seconds.
    """

    event: str
    alarm: str
    text: str
    wallet: str
    network: str
    at: float

    @property
    def title(self) -> str:
        return f"DECLOUD trainer: {self.alarm.replace('_', ' ') or self.event}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Channel(Protocol):
    """One way to a person. A message that may have arrived may be sent again."""

    @property
    def name(self) -> str:
        """For the log; without anything secret."""
        ...

    async def send(self, notice: Notice) -> None:
        """Raises DecloudError when it didn't arrive; retryable or not, it is tried again."""
        ...


class Webhook:
    """Posts JSON to a URL, whose path or query may be a secret: only the host is ever told.

    ``text`` is what Slack and Mattermost show, ``content`` what Discord does; the other keys are
    those of the notice. Redirections aren't followed: the message goes where the user said."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __repr__(self) -> str:
        return f"Webhook({self.name})"

    @property
    def name(self) -> str:
        return f"the webhook at {urlsplit(self._url).hostname}"

    async def send(self, notice: Notice) -> None:
        import aiohttp

        said = f"{notice.title}: {notice.text}"[:MAX_TEXT]
        body = {**notice.to_json(), "text": said, "content": said, "title": notice.title}
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=SEND_S),
                    headers={"User-Agent": f"decloud-trainer/{__version__}"},
                ) as session,
                session.post(self._url, json=body, allow_redirects=False) as answer,
            ):
                await answer.content.read(_MAX_ANSWER_BYTES)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Their texts name the URL.
            raise NetworkError(f"{self.name} can't be reached: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise NetworkError(
                f"{self.name} answered {status}", hint="check notify_webhook with its service"
            )


class Command:
    """Runs a command of the user's with the notice on its standard input: the title, an empty
    line, the text. No shell has a hand in it."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
        self._words = (os.path.expanduser(words[0]), *words[1:])
        self._environ = notice_environment(environ)

    @property
    def name(self) -> str:
        return f"the command {os.path.basename(self._words[0])}"

    async def send(self, notice: Notice) -> None:
        text = f"{notice.title}\n\n{notice.text[:MAX_TEXT]}\n"
        await run_briefly(self._words, text.encode(), self._environ, self.name)


class Desktop:
    """A notification on the desktop that the daemon runs on: notify-send, or osascript on macOS."""

    name = "the desktop"

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = notice_environment(environ)

    @staticmethod
    def tool() -> str | None:
        """Path of the tool that shows notifications; None where there is none."""
        return shutil.which("osascript" if sys.platform == "darwin" else "notify-send")

    async def send(self, notice: Notice) -> None:
        tool = self.tool()
        if tool is None:
            raise DecloudError(
                "there is nothing here to show desktop notifications with",
                hint="install notify-send (Debian: libnotify-bin), or set notify_desktop=false",
            )
        text = notice.text[:MAX_TEXT]
        if tool.endswith("osascript"):
            words = [tool, "-e", _OSASCRIPT, "--", notice.title, text]
        else:  # it takes markup
            words = [tool, "--app-name=decloud-trainer", "--", notice.title, html.escape(text)]
        await run_briefly(words, b"", self._environ, self.name)


def channels_of(webhook: str, command: Sequence[str], *, desktop: bool) -> list[Channel]:
    """Those that are configured; an empty URL or command is none."""
    found: list[Channel] = []
    if webhook:
        found.append(Webhook(webhook))
    if command:
        found.append(Command(command))
    if desktop:
        found.append(Desktop())
        if Desktop.tool() is None:
            log.warning("notify_desktop is set, and nothing here shows notifications")
    return found


def notice_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The few variables of `environ` that a notifying command gets."""
    return {
        name: value for name, value in environ.items() if name in _ALLOWED or name.startswith("LC_")
    }


async def run_briefly(
    words: Sequence[str], stdin: bytes, environ: Mapping[str, str], name: str
) -> None:
    """Run a command to its end, for `SEND_S` at most; what it started goes with it.

    Raises:
        DecloudError: it can't be run, failed, or took too long.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise DecloudError(
            f"{name} can't be run: {getattr(error, 'strerror', None) or error}",
            hint="check notify_command",
        ) from error
    try:
        async with asyncio.timeout(SEND_S):
            await child.communicate(stdin)
    except TimeoutError:
        raise DecloudError(f"{name} was ended after {SEND_S:.0f} s") from None
    finally:
        _end(child)
        await child.wait()
    if child.returncode:
        raise DecloudError(
            f"{name} failed with exit code {child.returncode}", hint="run it by hand to see why"
        )


def _end(child: asyncio.subprocess.Process) -> None:
    """Kill the group: also what the command left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of it is left
        os.killpg(child.pid, signal.SIGKILL)


@dataclass(slots=True)
class _Way:
    channel: Channel
    waiting: deque[Notice] = field(default_factory=lambda: deque(maxlen=_MOST_KEPT))
    is_failing: bool = False


class Notifier:
    """Tells notices over every channel; what doesn't arrive waits for the next call."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._ways = [_Way(channel) for channel in channels]

    async def tell(self, notices: Sequence[Notice] = ()) -> None:
        """Send these, and before them what couldn't be sent so far."""
        for way in self._ways:
            way.waiting.extend(notices)
        await asyncio.gather(*(self._send(way) for way in self._ways))

    async def _send(self, way: _Way) -> None:
        while way.waiting:
            try:
                await way.channel.send(way.waiting[0])
            except DecloudError as error:
                if not way.is_failing:
                    log.warning("an alarm can't be told, it is tried again: %s", error)
                way.is_failing = True
                return
            way.is_failing = False
            way.waiting.popleft()
