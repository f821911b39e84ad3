"""A split of texts: rows whose cells are read one after the other, as one text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from decloud_trainer.training.data.rows import Rows, RowSplit, class_names, gathered, numbers_of
from decloud_trainer.training.data.split import Inputs, Labels
from decloud_trainer.training.data.tokens import Encoder, Tokenizer, Words
from decloud_trainer.training.spec import Modality


@dataclass(frozen=True, slots=True)
class TextSplit(RowSplit):
    """Texts and labels, stored as token ids int32 (N, 256)."""

    encoder: Encoder = Words()

    modality: ClassVar[Modality] = "text"

    @property
    def transform(self) -> str:
        return self.encoder.name

    def read(self) -> tuple[Inputs, Labels]:
        training = gathered(self.training)
        source = training if self.source is self.training else gathered(self.source)
        labels = numbers_of(source, class_names(training))
        ids = self.encoder.encode(_texts(source), _texts(training), len(labels))
        return ids, labels

    def tokenised(self, folder: Path) -> TextSplit:
        """The same texts for a transformer, by the tokenizer in `folder`.

        Raises:
            DatasetUnavailable: there is none.
        """
        return dataclasses.replace(self, encoder=Tokenizer.at(folder))


def _texts(rows: Rows) -> Iterator[str]:
    return (" ".join(cells) for cells, _ in rows.rows())
