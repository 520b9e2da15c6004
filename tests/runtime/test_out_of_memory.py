"""A stage that runs out of memory says so in one line, with the knob to turn."""

import pytest
import torch

from tests.conftest import STAGES
from vqlcmd.runtime import launcher


def too_much_for_a_cpu() -> None:
    torch.empty(2**58)


def too_much_for_numpy() -> None:
    import numpy as np

    np.empty(2**58)


def too_much_for_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


@pytest.mark.parametrize("run", [too_much_for_a_cpu, too_much_for_numpy, too_much_for_a_gpu])
@pytest.mark.parametrize(("stage", "knob"), [("train", "VQLCMD_MICRO_BATCH"), ("sample", "sample.batch_size")])
def test_out_of_memory_is_one_line_that_names_the_knob(
    run: object, stage: str, knob: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launcher.main(stage, run, parallel=False) == 1  # pyright: ignore[reportArgumentType]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"{stage}: out of memory (")
    assert knob in said


def test_other_errors_are_not_taken_for_it() -> None:
    def run() -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        launcher.main("train", run, parallel=False)


def test_every_stage_has_a_knob() -> None:
    assert set(STAGES) <= set(launcher.KNOBS)
