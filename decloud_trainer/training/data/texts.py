"""A split of texts: rows whose cells are read one after the other, as one text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from decloud_trainer.training.data.rows import Rows, class_names, gathered, numbers_of
from decloud_trainer.training.data.split import Inputs, Labels, Summary
from decloud_trainer.training.data.tokens import Encoder, Tokenizer, Words
from decloud_trainer.training.spec import Modality


@dataclass(frozen=True, slots=True)
class TextSplit:
    """Texts and labels, stored as token ids int32 (N, 256).

    Attributes:
        source: this split's rows.
        training: the training split's: words and classes are known from there.
    """

    source: Rows
    training: Rows
    encoder: Encoder = Words()

    @property
    def modality(self) -> Modality:
        return "text"

    @property
    def transform(self) -> str:
        return self.encoder.name

    @property
    def files(self) -> Sequence[Traversable]:
        return self.source.files

    @property
    def identity(self) -> str:
        return self.source.identity

    def summary(self) -> Summary:
        names = class_names(self.training)
        labels = numbers_of(self.source, names)
        return Summary(
            len(labels),
            len(names),
            modality="text",
            columns=self.source.columns,
            labels=names,
        )

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
