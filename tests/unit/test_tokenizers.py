"""Tokenizers of transformers: read from a local folder, nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tokenizers

from decloud_trainer.errors import DatasetUnavailable
from decloud_trainer.training.data.tokens import LENGTH, Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "##s", "Fine"]
CLS, SEP, FINE, FILM, S = 2, 3, 6, 7, 8


def write_vocabulary(folder: Path, words: list[str] = VOCABULARY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    (row,) = tokenizer.encode(iter([text]), iter(()), 1)
    return [number for number in row.tolist() if number]


def test_a_vocabulary_is_enough(tmp_path: Path) -> None:
    """Older models have vocab.txt alone; whether letters are lowered stands in the config."""
    tokenizer = Tokenizer.at(write_vocabulary(tmp_path))
    assert ids(tokenizer, "Fine films") == [CLS, FINE, FILM, S, SEP]
    assert tokenizer.vocabulary_size() == len(VOCABULARY)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    cased = Tokenizer.at(tmp_path)
    assert ids(cased, "Fine films") == [CLS, 9, FILM, S, SEP]
    assert cased.name != tokenizer.name, "another encoding is another entry of the cache"


def test_the_whole_tokenizer_comes_first(tmp_path: Path) -> None:
    """tokenizer.json gives what the library gives; texts end after 256 tokens with [SEP]."""
    folder = write_vocabulary(tmp_path)
    made = tokenizers.BertWordPieceTokenizer({word: n for n, word in enumerate(VOCABULARY)})
    made.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()
    tokenizer = Tokenizer.at(folder)
    assert ids(tokenizer, "a fine film") == made.encode("a fine film").ids
    encoded = tokenizer.encode(iter(["film " * 999, ""]), iter(()), 2)
    assert encoded.shape == (2, LENGTH)
    assert encoded[0, [0, 1, -2, -1]].tolist() == [CLS, FILM, FILM, SEP]
    assert encoded[1].tolist() == [CLS, SEP] + [0] * (LENGTH - 2)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("other.txt", "a", "neither tokenizer.json nor vocab.txt"),
        ("tokenizer.json", "{}", "it can't be read"),
        ("tokenizer.json", '{"version": "9"}', "it can't be read"),
        ("vocab.txt", "a\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n", r"its \[PAD\] is not number 0"),
    ],
)
def test_folders_without_a_usable_tokenizer_say_so(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    """The hint names the setting."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DatasetUnavailable, match=words) as caught:
        Tokenizer.at(tmp_path).vocabulary_size()
    assert "tokenizer_path" in caught.value.hint


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else needs it."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DatasetUnavailable, match="needs the package tokenizers") as caught:
        Tokenizer.at(write_vocabulary(tmp_path)).vocabulary_size()
    assert "decloud-trainer[text]" in caught.value.hint
