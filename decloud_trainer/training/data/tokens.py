"""Texts -> token ids: words counted in the training texts, or a tokenizer that lies in a folder.

The network's text_cnn documents no tokenisation of its own, so this is ours: a text is its runs of
letters and digits in lower case, an apostrophe within one included. The 29,998 words that are most
frequent in the training texts have the numbers from 2, 1 is any other word, 0 is padding; words of
equal frequency come in the order of the alphabet. The first 256 words of a text are looked at.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.extras import package

LENGTH = 256  # tokens of a text that are looked at
VOCABULARY = 30_000  # of our own words, padding and unknown ones included
PADDING, UNKNOWN = 0, 1  # padding is number 0 in BERT's vocabularies, too
MAX_TOKENIZER_BYTES = 64 * 1024**2
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BATCH = 1000

Ids = NDArray[np.int32]


class Encoder(Protocol):
    """Makes texts to rows of ids, each exactly `LENGTH` long, padded with 0."""

    @property
    def name(self) -> str:
        """Part of a file name; another encoding has another."""

    def encode(self, texts: Iterable[str], training: Iterable[str], count: int) -> Ids:
        """`count` texts -> int32 (count, 256). `training` holds the texts of the training split."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of the training texts, see above."""

    @property
    def name(self) -> str:
        return f"words-{LENGTH}-1"

    def encode(self, texts: Iterable[str], training: Iterable[str], count: int) -> Ids:
        known = vocabulary(training)
        ids = np.zeros((count, LENGTH), dtype=np.int32)
        for row, text in zip(ids, texts, strict=True):
            words = [known.get(word, UNKNOWN) for word in itertools.islice(words_of(text), LENGTH)]
            row[: len(words)] = words
        return ids


def words_of(text: str) -> Iterator[str]:
    return (found[0] for found in _WORD.finditer(text.lower()))


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Word -> number, from 2 upwards, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text))
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return {word: rank for rank, (word, _) in enumerate(ranked[: VOCABULARY - 2], start=2)}


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A BERT tokenizer: a folder with tokenizer.json, or with vocab.txt. No code in it is run."""

    folder: Path
    digest: str

    @property
    def name(self) -> str:
        return f"tokens-{LENGTH}-{self.digest[:16]}-1"

    @classmethod
    def at(cls, folder: Path) -> Tokenizer:
        """The one in `folder`, known by what it is made of.

        Raises:
            DatasetUnavailable: there is none.
        """
        digest = hashlib.sha256()
        for file in _tokenizer_files(folder):
            digest.update(f"{file.name} ".encode() + _read(file))
        return cls(folder, digest.hexdigest())

    def encode(self, texts: Iterable[str], training: Iterable[str], count: int) -> Ids:
        made = self._made()
        ids = np.zeros((count, LENGTH), dtype=np.int32)
        remaining, start = iter(texts), 0
        while batch := list(itertools.islice(remaining, _BATCH)):
            for number, encoding in enumerate(made.encode_batch(batch), start=start):
                ids[number] = encoding.ids
            start += len(batch)
        return ids

    def vocabulary_size(self) -> int:
        """How many ids there are.

        Raises:
            DatasetUnavailable: it can't be used; says why.
        """
        return int(self._made().get_vocab_size())

    def _made(self) -> Any:
        """The library's tokenizer, set to our length and padding."""
        tokenizers = package("tokenizers", f"the tokenizer in {self.folder}")
        try:
            made = _make(tokenizers, self.folder)
        # The library has no error class of its own.
        except Exception as error:
            raise _no_tokenizer(self.folder, f"it can't be read: {error}") from error
        if made.token_to_id("[PAD]") != PADDING:
            raise _no_tokenizer(self.folder, "its [PAD] is not number 0, as BERT's is")
        made.enable_truncation(LENGTH)
        made.enable_padding(length=LENGTH, pad_id=PADDING, pad_token="[PAD]")  # noqa: S106
        return made


def _make(tokenizers: Any, folder: Path) -> Any:
    whole, *_ = _tokenizer_files(folder)
    if whole.name == "tokenizer.json":
        return tokenizers.Tokenizer.from_str(_read(whole).decode())
    said = folder / "tokenizer_config.json"
    config = json.loads(_read(said)) if said.is_file() else {}
    lower = config.get("do_lower_case", True) if isinstance(config, dict) else True
    words = _read(whole).decode().splitlines()
    numbers = {word.rstrip(): number for number, word in enumerate(words)}
    return tokenizers.BertWordPieceTokenizer(numbers, lowercase=bool(lower))


def _tokenizer_files(folder: Path) -> list[Path]:
    """What the encoding is made of, the main file first."""
    if (folder / "tokenizer.json").is_file():
        return [folder / "tokenizer.json"]
    if (folder / "vocab.txt").is_file():
        said = folder / "tokenizer_config.json"
        return [folder / "vocab.txt", *([said] if said.is_file() else [])]
    raise _no_tokenizer(folder, "it holds neither tokenizer.json nor vocab.txt")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_TOKENIZER_BYTES + 1)
    except OSError as error:
        raise _no_tokenizer(file.parent, f"can't read {file.name}: {error.strerror}") from error
    if len(data) > MAX_TOKENIZER_BYTES:
        raise _no_tokenizer(file.parent, f"{file.name} is too large")
    return data


def _no_tokenizer(folder: Path, what: str) -> DatasetUnavailable:
    return DatasetUnavailable(
        f"{folder} is no usable tokenizer: {what}",
        hint="put the model's tokenizer.json there, or name its folder: "
        "decloud-trainer config --set tokenizer_path=/path/to/folder",
    )
