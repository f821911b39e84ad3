"""Do data and network go together? Told before anything is trained."""

from __future__ import annotations

from pathlib import Path

from decloud_trainer.errors import TrainingError, UnknownArchitecture
from decloud_trainer.training.data.samples import Samples
from decloud_trainer.training.data.tokens import Tokenizer
from decloud_trainer.training.networks import Architecture
from decloud_trainer.training.spec import DataSpec

WORDS = {"image": "images", "text": "texts", "tabular": "rows of numbers"}


def check_inputs(samples: Samples, architecture: Architecture, name: str) -> None:
    """The samples must be what the network takes.

    Raises:
        TrainingError: they are something else, or rows with more or fewer columns.
    """
    takes = architecture.modality
    if samples.modality != takes:
        raise TrainingError(
            f"{name} holds {WORDS[samples.modality]}, but {architecture.name} takes {WORDS[takes]}",
            hint="skip this round, or map its dataset to data of the other kind",
        )
    if takes == "tabular" and samples.inputs.shape[1] != architecture.columns:
        raise TrainingError(
            f"{name} has {samples.inputs.shape[1]} columns, the model takes {architecture.columns}",
            hint="name the columns that the model was made for in a dataset.json beside the data",
        )


def tokenizer_for(architecture: Architecture, folder: Path | None) -> Path | None:
    """The folder of the tokenizer that the network needs; None for one that needs none.

    Raises:
        UnknownArchitecture: it needs one, and none was named.
        DatasetUnavailable: what is there is no tokenizer.
        TrainingError: its ids are more than the network knows.
    """
    if architecture.encoder is None:
        return None
    if folder is None:
        raise UnknownArchitecture(
            f"the model is a {architecture.name} classifier, and no tokenizer for it is here",
            hint="a round brings none: put the model's tokenizer.json into a folder, then "
            "decloud-trainer config --set tokenizer_path=/path/to/folder",
        )
    size = Tokenizer.at(folder).vocabulary_size()
    if size > architecture.encoder.vocabulary:
        raise TrainingError(
            f"the tokenizer in {folder} has {size:,} tokens, the model knows "
            f"{architecture.encoder.vocabulary:,}",
            hint="use the tokenizer of this very model, or skip this round",
        )
    return folder


def has_same_words(architecture: Architecture, data: DataSpec, preview: DataSpec) -> bool:
    """Whether inputs mean the same in both: our own words are numbered anew for each dataset."""
    return architecture.name != "text_cnn" or data == preview
