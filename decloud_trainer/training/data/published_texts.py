"""Where the texts that are known by name can be had: their publishers, or the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import os

from decloud_trainer.training.data.transfer import File

HUB = "https://huggingface.co"
# The publishers' own files, with the checksums that torchtext has for them.
_AG_NEWS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
FILES = {
    "imdb": (
        File(
            "aclImdb_v1.tar.gz",
            ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
            "md5:7c2ac02c03563afcf9b574c7e56c153a",
        ),
    ),
    "sst2": (
        File(
            "SST-2.zip",
            ("https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",),
            "md5:9f81648d4199384278b86e315dac217c",
        ),
    ),
    "agnews": (
        File("train.csv", (f"{_AG_NEWS}train.csv",), "md5:b1a00f826fdfbd249f79597b59e1dc12"),
        File("test.csv", (f"{_AG_NEWS}test.csv",), "md5:d52ea96a97a2d943681189a97654912d"),
    ),
}
# Repository and files on the hub. No checksums were published: only lengths can be checked, and
# that each is a whole Parquet file.
_HUB_FILES = {
    "imdb": ("stanfordnlp/imdb", "plain_text", ("train", "test")),
    "sst2": ("stanfordnlp/sst2", "data", ("train", "validation")),
    "agnews": ("fancyzhx/ag_news", "data", ("train", "test")),
}


def sources(name: str) -> list[tuple[File, ...]]:
    """All files of the dataset, from each place that has them, the best first.

    The hub's files can be read only with pyarrow. As for its own tools, the variable HF_ENDPOINT
    names a mirror of the hub.
    """
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    repository, folder, splits = _HUB_FILES[name]
    pieces = [f"{split}-00000-of-00001.parquet" for split in splits]
    mirrored = tuple(
        File(piece, (f"{hub}/datasets/{repository}/resolve/main/{folder}/{piece}",))
        for piece in pieces
    )
    readable = importlib.util.find_spec("pyarrow") is not None
    return [FILES[name], *([mirrored] if readable else [])]
