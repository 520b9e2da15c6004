"""A little English of one's own making: files, a manifest and parameters with which all stages run in seconds."""

import random
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import merge
from tests.pipeline_imports import ROOT
from vqlcmd.runtime.yaml_file import read_yaml
from vqlcmd.text import corpus

SENTENCE = "the cat sat on a mat and saw some dogs run over green hills near old towns"
WORDS = SENTENCE.split()
LENGTH = 16
SMALL: dict[str, Any] = {
    "dataset": "tiny",
    "embedding_dim": 8,
    "sample_steps": 3,
    "train_steps": 60,
    "network": {"layers": 2, "heads": 2, "width": 32},
    "train": {"batch_size": 32, "warmup": 4, "log_every": 30, "save_every": 10},
    "tokenize": {"block": LENGTH, "holdout": 0.1},
    "sample": {"count": 40, "batch_size": 20},
    "bound": {"levels": 4},
    "reference": {"proxy": {"steps": 60, "network": {"layers": 1, "heads": 2, "width": 32}, "batch_size": 16}},
    "evaluate": {"copied": 20, "shown": 3},
}


def paragraphs(seed: int, count: int) -> list[str]:
    """Sentences of WORDS, the same ones for the same seed."""
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(8, 30))).capitalize() + "." for _ in range(count)]


def write_text(folder: Path, files: dict[str, str]) -> corpus.Corpus:
    """Files in folder/texts/tiny, and their manifest."""
    for name, text in files.items():
        path = folder / "texts" / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found, _ = corpus.scan("tiny", folder / "texts" / "tiny")
    corpus.write(found, folder / "data" / "manifests" / "tiny.json")
    return found


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    """params.yaml in `folder`: the preset's, made small, with `changes`."""
    values = merge(merge(read_yaml(ROOT / "presets" / "text.yaml"), SMALL), changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def prepare(folder: Path, changes: dict[str, Any]) -> Path:
    """A folder in which the stages of text can run, with $VQLCMD_TEXT set to its `texts`."""
    write_text(folder, {f"f{number}.txt": "\n\n".join(paragraphs(number, 120)) for number in range(3)})
    write_params(folder, changes)
    return folder
