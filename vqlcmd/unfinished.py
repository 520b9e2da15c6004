"""Loads the model of a training that is running or was interrupted, from its last saved state."""

from pathlib import Path
from typing import Any

import torch

from vqlcmd import methods
from vqlcmd.generator import Generator
from vqlcmd.params import check_run, load_run
from vqlcmd.runtime import paths, resume
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.text import vocabulary
from vqlcmd.text_generator import TextGenerator
from vqlcmd.tokenizer import load as load_tokenizer
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import grid_of

NEWEST = "newest"
TRIES = 5
"""Attempts to read a state: a running training may remove its oldest one at any moment."""


def load_state(name: str) -> tuple[Generator | TextGenerator, int]:
    """A generator with the moving average of the training .state/train/`name`, or of the NEWEST one, and its step.

    The tokenizer, or the vocabulary for text, is that in data/. It samples as params.yaml says. ConfigError where there
    is no such run, DataError where no state is left or the tokens or the tokenizer in data/ are not those of the run.
    """
    folder = _folder(name)
    run = read_json(folder / "run.json", f"delete {folder}")["run"]
    saved = _saved(folder)
    header = shards.read_header(paths.TOKENS)
    if belongs.header_digest(header) != belongs.header_digest(run["inputs"]):
        raise DataError(f"{folder} is a training on other tokens than {paths.TOKENS}: `dvc repro tokenize`")
    file = paths.VOCABULARY if "text" in header else paths.VQGAN
    belongs.check_belong(belongs.tokenizer(file), belongs.tokens(paths.TOKENS, header))
    here = load_run()
    # The parameters of the run; those that no result depends on are from params.yaml.
    values = {**here.model_dump(), **run["settings"], "weights": "model"}
    values["train"] = {**here.train.model_dump(), **run["settings"]["train"]}
    params = check_run(values, f"the parameters of {folder} with params.yaml")
    codebook_KD = shards.read_codebook(paths.TOKENS)
    classes = shards.class_count(header, params.train.use_classes, params.guidance)
    with torch.random.fork_rng(devices=[]):
        method = methods.build(params, codebook_KD, header["tokens"], classes)
    method.load_state_dict(saved[f"ema-{params.train.ema[0]}"])
    about = methods.described(method, params, header, codebook_KD)
    about["grid"] = method.grid = grid_of(about, paths.TOKENS)
    trained = method.to(device()).eval().requires_grad_(False)
    if "text" in header:
        return TextGenerator(trained, vocabulary.load(file), about, device()), saved["step"]
    return Generator(trained, load_tokenizer(paths.VQGAN, device()), about, device()), saved["step"]


def _folder(name: str) -> Path:
    root = resume.state_root() / "train"
    there = sorted(root.glob("*/[0-9]*-*.pt"), key=lambda path: path.stat().st_mtime)
    names = list(dict.fromkeys(path.parent.name for path in reversed(there)))
    if not names:
        raise ConfigError(f"{root} holds no saved state: a training saves one every `train.save_every` steps")
    if name != NEWEST and name not in names:
        raise ConfigError(f"--state {shown(name)} is no unfinished training: choose {NEWEST}, {', '.join(names[:9])}")
    return root / (names[0] if name == NEWEST else name)


def _saved(folder: Path) -> dict[str, Any]:
    for _ in range(TRIES):
        try:
            saved = resume.State(folder, writer=False).load()
        except FileNotFoundError:
            continue
        if saved is not None:
            return saved
    raise DataError(f"{folder} holds no state any more: the training is over, and data/model has its model")
