"""A worker that learns nothing: it follows a script, for tests of what happens around learning.

It speaks the worker's protocol and writes valid artefacts, with the standard library alone, so
it starts in some 30 ms. Its results say ``"scripted": true``, its log says so too, and its
accuracies come from the script.

The script is a JSON object, given as the command's one argument and overridden, key by key, by
``spec["script"]``:

    seconds          how long the job takes (0.05)
    heartbeat_s      time between heartbeats (1.0)
    preview          {"before": 50.0, "after": 60.0} in percent, or null for an unknown preview
    samples_per_s    what inspect and train report (1000.0)
    data             what else prepare reports, e.g. {"modality": "text"}
    fail             end with an error of this class
    crash_attempts   die like a crash in so many first attempts of the job
    crash_signal     die by this signal's number instead of exit code 70
    hang             no heartbeat and no end, but still an ear for the parent's death
    hold_mb          hold so much memory until the end
    ignore_cancel    go on for ever after a cancel, whatever the signal but SIGKILL
    children         start so many processes that outlive it unless killed
    say              a line for stdout, as it is
    log              a line for the log
"""

from __future__ import annotations

import array
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

ARTIFACT = "gradient.pt"


class Ended(Exception):
    """The job ends with this error event."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(message)
        self.type_name = type_name


class Cancelled(Exception):
    """The job was cancelled."""


class Voice:
    """stdout, one JSON line at a time, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, event: str, **fields: Any) -> None:
        self.line(json.dumps({"event": event, **fields}))

    def line(self, text: str) -> None:
        with self._lock:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


class Ear:
    """stdin after its first line: commands, and the parent's death."""

    def __init__(self) -> None:
        self.stops = False
        self.cancels = False
        self.heard = threading.Event()

    def listen(self) -> None:
        for line in sys.stdin:
            command = json.loads(line).get("command")
            self.stops = self.stops or command == "stop"
            self.cancels = self.cancels or command == "cancel"
            if self.stops or self.cancels:  # what is no command hurries nothing
                self.heard.set()
        os._exit(1)  # end of file: the parent is gone, nobody wants the result


def _note(text: str) -> None:
    """A line of the worker's log."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    first = sys.stdin.readline()
    if not first:
        return 1
    job = json.loads(first)
    script: dict[str, Any] = json.loads(arguments[0]) if arguments else {}
    script |= job["spec"].get("script") or {}
    voice, ear = Voice(), Ear()
    _note(f"scripted worker: {job['kind']}, nothing is learned")
    if script.get("ignore_cancel"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=ear.listen, daemon=True).start()
    try:
        result = _follow(script, job, voice, ear)
    except Ended as error:
        hint = "it is in the script"
        told = {"type": error.type_name, "message": str(error), "hint": hint}
        voice.say("error", error=told)
        return 1
    except OSError as error:
        told = {"type": "StorageError", "message": f"can't write: {error.strerror}", "hint": ""}
        voice.say("error", error=told)
        return 1
    except Cancelled:
        return 130
    voice.say("result", result=result)
    return 0


def _follow(script: dict[str, Any], job: dict[str, Any], voice: Voice, ear: Ear) -> dict[str, Any]:
    folder, spec = Path(job["folder"]), job["spec"]
    _misbehave(script, folder, voice)
    if held := b"x" * (1_000_000 * script.get("hold_mb", 0)):
        _note(f"holding {len(held):,} bytes")
    if not script.get("hang"):
        beat = threading.Thread(target=_beat, args=(voice, script.get("heartbeat_s", 1.0)))
        beat.daemon = True
        beat.start()
    stopped = _pass_time(script, spec, voice, ear)
    if "fail" in script:
        raise Ended(script["fail"], f"scripted failure: {script['fail']}")
    if job["kind"] == "inspect":
        return {**_inspect(spec), **_marks(script)}
    if job["kind"] == "prepare":
        fingerprint = hashlib.sha256(spec["data"]["name"].encode("utf-8")).hexdigest()
        counts = {"train": 1347, "test": 450, "classes": 10, "fingerprint": fingerprint}
        return {**counts, **script.get("data", {}), "scripted": True}
    return {**_train(script, spec, folder), "stopped": stopped, **_marks(script)}


def _misbehave(script: dict[str, Any], folder: Path, voice: Voice) -> None:
    for _ in range(script.get("children", 0)):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        _note(f"child {child.pid}")
    if "log" in script:
        _note(script["log"])
    if "say" in script:
        voice.line(script["say"])
    counter = folder / ".scripted-attempts"
    # Empty where a worker was killed in the middle of writing it.
    attempt = int(counter.read_text("ascii") or 0) + 1 if counter.exists() else 1
    counter.write_text(str(attempt), "ascii")
    if attempt <= script.get("crash_attempts", 0):
        _note(f"scripted crash in attempt {attempt}")
        if "crash_signal" in script:
            os.kill(os.getpid(), script["crash_signal"])
        os._exit(70)


def _beat(voice: Voice, every_s: float) -> None:
    while True:
        voice.say("heartbeat")
        time.sleep(every_s)


def _pass_time(script: dict[str, Any], spec: dict[str, Any], voice: Voice, ear: Ear) -> str:
    """Let the script's time pass; how it ended: complete, stop or deadline."""
    batches, epochs = 10, _epochs(spec)
    pause_s = float(script.get("seconds", 0.05)) / batches
    for batch in range(1, batches + 1):
        voice.say(
            "progress",
            stage="train",
            epoch=1 + (batch - 1) * epochs // batches,
            epochs=epochs,
            batch=batch,
            batches=batches,
            loss=2.3 / batch,
        )
        ear.heard.wait(pause_s)
        while script.get("hang") or (ear.cancels and script.get("ignore_cancel")):
            time.sleep(0.05)
        if ear.cancels:
            raise Cancelled
        if ear.stops:
            return "stop"
        if spec.get("deadline") is not None and time.time() >= spec["deadline"]:
            return "deadline"
    return "complete"


def _epochs(spec: dict[str, Any]) -> int:
    epochs = spec.get("epochs", 1)
    return 1 if epochs == "auto" else int(epochs)


def _inspect(spec: dict[str, Any]) -> dict[str, Any]:
    try:
        data = Path(spec["model"]).read_bytes()
    except OSError as error:
        raise Ended("HostileFile", f"can't read {spec['model']}: {error.strerror}") from error
    if len(data) > spec.get("max_bytes", len(data)):
        raise Ended("TooLarge", f"{spec['model']} has {len(data)} bytes")
    digest = hashlib.sha256(data).hexdigest()
    if spec.get("sha256") not in (None, digest):
        raise Ended("ContentMismatch", f"{spec['model']} is another file")
    parameters = sum(_count(shape) for shape in simple_cnn_shapes(10).values())
    return {
        "architecture": "simple_cnn",
        "classes": 10,
        "parameters": parameters,
        "sha256": digest,
        "bytes": len(data),
    }


def _train(script: dict[str, Any], spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    data = gradient_file(int(spec.get("seed", 0)), int(spec.get("classes", 10)))
    temporary = folder / f".{ARTIFACT}.tmp"
    temporary.write_bytes(data)
    temporary.replace(folder / ARTIFACT)
    epochs = _epochs(spec)
    preview = script.get("preview", {"before": 50.0, "after": 60.0})
    return {
        "artifact": ARTIFACT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "preview": None if preview is None else {"samples": 450, **preview},
        "epochs": epochs,
        "batches": 10,
        "samples": 1347 * epochs,
        "seconds": float(script.get("seconds", 0.05)),
        "loss": [2.3 / (epoch + 2) for epoch in range(epochs)],
        "device": "cpu",
        "threads": 1,
        "torch": "none",
    }


def _marks(script: dict[str, Any]) -> dict[str, Any]:
    return {"samples_per_s": float(script.get("samples_per_s", 1000.0)), "scripted": True}


def simple_cnn_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """The network's one image classifier, key by key."""
    return {
        "conv1.weight": (32, 3, 3, 3),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 3, 3),
        "conv2.bias": (64,),
        "conv3.weight": (64, 64, 3, 3),
        "conv3.bias": (64,),
        "fc1.weight": (512, 1024),
        "fc1.bias": (512,),
        "fc2.weight": (classes, 512),
        "fc2.bias": (classes,),
    }


def gradient_file(seed: int, classes: int = 10) -> bytes:
    """A torch file of small float32 values, without torch; equal for equal seeds.

    The layout is that of torch.save: a zip of stored entries, the tensors' bytes apart from the
    pickle, which refers to them by persistent ids.
    """
    shapes = simple_cnn_shapes(classes)
    source = random.Random(seed)
    levels = [(step - 127.5) * 1e-5 for step in range(256)]
    entries = {"data.pkl": _pickle(shapes), "byteorder": b"little"}
    for number, shape in enumerate(shapes.values()):
        values = array.array("f", map(levels.__getitem__, source.randbytes(_count(shape))))
        if sys.byteorder == "big":
            values.byteswap()
        entries[f"data/{number}"] = values.tobytes()
    entries["version"] = b"3\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, data in entries.items():
            # The default time is 1980: equal bytes today and tomorrow.
            file.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
    return buffer.getvalue()


def _pickle(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The pickle of {name: tensor}, opcode by opcode (protocol 2)."""
    items = b"".join(
        _text(name)
        + b"ctorch._utils\n_rebuild_tensor_v2\n("
        + b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(str(number)) + _text("cpu")
        + _number(_count(shape)) + b"tQ"  # the persistent id
        + _number(0) + _numbers(shape) + _numbers(_strides(shape))
        + b"\x89ccollections\nOrderedDict\n)R"  # needs no gradient; no hooks
        + b"tR"
        for number, (name, shape) in enumerate(shapes.items())
    )  # fmt: skip
    return b"\x80\x02}(" + items + b"u."


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return b"X" + len(data).to_bytes(4, "little") + data


def _number(number: int) -> bytes:
    return b"J" + number.to_bytes(4, "little", signed=True)


def _numbers(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_count(shape[axis + 1 :]) for axis in range(len(shape)))


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
