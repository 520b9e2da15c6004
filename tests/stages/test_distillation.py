"""`distill.teacher`: a training that learns from a finished model, and teachers that are refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY, merge, run_stages, write_params
from vqlcmd.methods import load_method
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokens import shards

SHORT: dict[str, Any] = {"train_steps": 6, "train": {"log_every": 3}, "sampler": "consistency", "sample_steps": 1}


def prepared(folder: Path, distill: dict[str, Any], changes: dict[str, Any]) -> None:
    """A teacher in `folder`, and params.yaml for its student."""
    if not (folder / "data/teacher").exists():
        shutil.copytree(folder / "data/model", folder / "data/teacher")
    distill = {"teacher": "data/teacher", "sha256": None, "steps": 4} | distill
    write_params(folder, merge(merge(TINY, SHORT | {"distill": distill}), changes))


def test_a_student_is_trained_sampled_and_evaluated_and_names_its_teacher(copy: Path) -> None:
    prepared(copy, {}, {})
    run_stages(copy, "train", "sample", "bound", "evaluate", "figures")
    cpu = torch.device("cpu")
    student, about = load_method(copy / "data/model/model.safetensors", cpu)
    teacher, other = load_method(copy / "data/teacher/model.safetensors", cpu)
    assert about["teacher_digest"] == sha256(copy / "data/teacher/model.safetensors")
    assert "teacher_digest" not in other
    assert torch.equal(student.table, teacher.table)
    name = "network.output.weight"
    assert not torch.equal(student.state_dict()[name], teacher.state_dict()[name])
    header = shards.read_header(copy / "data/samples")
    assert (header["nfe"], header["sampler"]) == (1, "consistency")
    assert "\tcd\t" in (copy / "metrics/train.tsv").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize(
    ("distill", "changes", "words"),
    [
        ({"teacher": "data/nobody"}, {}, "is no file: copy a finished data/model there"),
        ({"teacher": "data/model"}, {}, "which this stage writes: name a copy elsewhere"),
        ({"sha256": "0" * 64}, {}, "but distill.sha256 is 0000"),
        ({}, {"embedding_dim": 4}, "embedding_dim is 4, and 8 of the teacher"),
        (
            {},
            {"network": {"layers": 1}},
            "network is {'layers': 1, 'heads': 2, 'width': 32, 'dropout': 0.0, 'positions': 'sinusoidal'}, and {",
        ),
        ({}, {"method": "mdlm", "sampler": "ancestral"}, "method is mdlm, and lcmd of the teacher"),
        ({}, {"train": {"use_classes": False}}, "has 10 classes, and train.use_classes makes it 0: change that"),
    ],
    ids=str,
)
def test_a_teacher_that_does_not_fit_is_refused_in_one_line(
    copy: Path, distill: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    prepared(copy, distill, changes)
    with pytest.raises((ConfigError, DataError)) as error:
        run_stages(copy, "train")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_teacher_of_other_tokens_is_refused(copy: Path) -> None:
    prepared(copy, {}, {"tokenize": {"holdout": 0.2}})
    run_stages(copy, "tokenize")
    with pytest.raises(DataError, match="do not belong together, they come from different tokens"):
        run_stages(copy, "train")
