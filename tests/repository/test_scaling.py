"""The page on scaling: its numbers are the plan's, its scripts work, and it knows all stages that share their work."""

import inspect
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import STAGES
from tests.costs.test_presets_full import planned
from tests.pipeline_imports import ROOT
from tests.repository.test_docs import cells
from tests.repository.test_presets import PAPER, preset
from vqlcmd.cli.plan import BF16, REACHED, _bytes, _si
from vqlcmd.costs.gpus import find
from vqlcmd.costs.plan import Data, Plan, plan
from vqlcmd.experiments.table import overridden
from vqlcmd.params import check_params, load_params
from vqlcmd.runtime.yaml_file import read_yaml

TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
JOBS = [block for block in BLOCKS if "#SBATCH" in block]
TABLES = [cells(part) for part in re.findall(r"((?:^\|.*\n)+)", TEXT, re.MULTILINE)]
SHARED, SIZES, IMAGES, GPUS, _, FULL = TABLES


def made(override: str, images: int = 70_000) -> Plan:
    key, _, value = override.partition("=")
    changes = {key: int(value)} if value else {}
    return plan(check_params(overridden(read_yaml(preset("ffhq")), changes), "ffhq"), Data(images, 0))


@pytest.mark.parametrize("row", SIZES)
def test_what_grows_with_the_model_is_what_the_plan_prints(row: str) -> None:
    found = made(row.strip("`") if "=" in row else "")
    costs, memory = found.costs, found.memory(on_cpu=False)
    assert SIZES[row] == [
        f"{found.costs.parameters:,}",
        str(found.sizes.tokens),
        *map(_si, (costs.forward, costs.training, costs.sampling)),
        *map(_bytes, (found.state(), memory.per_image)),
    ]
    assert found.state() == 20 * found.costs.parameters
    assert memory.fixed == 20 * found.costs.parameters


@pytest.mark.parametrize("row", IMAGES)
def test_what_grows_with_the_images_is_what_the_plan_prints(row: str) -> None:
    found = made("", int(row.replace(",", "")))
    work, disk = found.work(), found.disk()
    flops = [work[name].flops for name in ("tokenize", "reference", "evaluate, distances")]
    assert IMAGES[row] == [
        *map(_si, flops),
        *map(_bytes, (disk["data/tokens"], disk["data/reference"], found.evaluation_memory())),
    ]


@pytest.mark.parametrize("row", GPUS)
def test_steps_and_gradients_of_several_gpus_are_those_of_the_plan(row: str) -> None:
    name, processes = row.split(",")[0], int(row.split()[1])
    costs = plan(load_params(preset(name)), Data(1, 1000 if name == "imagenet" else 0)).costs
    alone = 128 * costs.training / (REACHED["cuda", BF16] * find("h100").bf16)
    step, rate = alone / processes, 450e9 / 2 if "one node" in row else 50e9 / 2
    sent = 2 * (processes - 1) / processes * 4 * costs.parameters / rate
    backward = step * 4 / round(costs.training / costs.forward)
    assert GPUS[row] == [f"{1000 * alone:.0f} ms", *(f"{1000 * each:.1f} ms" for each in (step, backward, sent))]


@pytest.mark.parametrize("name", PAPER)
def test_the_measured_table_has_the_plans_of_the_presets(name: str) -> None:
    parameters, shown, *_ = FULL[name]
    assert (
        parameters
        == f"{plan(load_params(preset(name)), Data(1, 1000 if name == 'imagenet' else 0)).costs.parameters:,}"
    )
    assert shown == f"{planned(load_params(preset(name))) / 1e9:.2f} GB"


def test_the_formula_of_a_pass_is_what_pytorch_counts() -> None:
    found = made("")
    s = found.sizes
    n, d, w, k, layers = s.tokens, s.inputs, s.width, s.codes, s.layers
    written = r"N (2DW + 24LW^2 + 2WK) + 4LWN^2 + 4LW^2"
    assert f"$$ {written} $$" in TEXT
    assert (
        n * (2 * d * w + 24 * layers * w**2 + 2 * w * k) + 4 * layers * w * n**2 + 4 * layers * w**2
        == found.costs.forward
    )


def test_the_stages_that_share_their_work_are_those_of_the_code() -> None:
    said = {name.strip("`"): row[0] == "yes" for names, row in SHARED.items() for name in names.split(", ")}
    assert said == {
        stage: "parallel=True" in inspect.getsource(import_module(f"stages.{stage}").main) for stage in STAGES
    }


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_shell(block: str, tmp_path: Path) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


STUBS = """
source() { :; }
scontrol() { if [ "$1" = requeue ]; then echo "requeued $2"; else echo node0; fi; }
scancel() { echo "scancel $*"; kill -TERM "$work" 2>/dev/null; }
srun() { echo "srun $*"; sleep "$SECONDS_OF_WORK" & work=$!; wait $work; return "$CODE"; }
dvc() { echo "dvc $*"; [ "$1" != status ]; }
"""


@pytest.mark.parametrize("job", JOBS, ids=["one node", "several nodes"])
@pytest.mark.parametrize(("signalled", "code"), [(True, 255), (True, 0), (False, 255), (False, 0)])
def test_a_job_is_queued_again_only_if_it_was_asked_to_stop_before_it_was_done(
    job: str, signalled: bool, code: int
) -> None:
    """With commands of SLURM that only tell what they were asked for, and a signal while a stage works."""
    later = "(sleep 0.3; kill -USR1 $$) &\n" if signalled else ""
    trapped = re.search(r"^trap .*\n", job, re.MULTILINE)
    assert trapped
    script = STUBS + job.replace(trapped[0], trapped[0] + later, 1)
    environment = {"SLURM_JOB_ID": "7", "CODE": str(code), "SECONDS_OF_WORK": "0.8" if signalled else "0"}
    environment |= {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[0-1]", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ("requeued 7" in done.stdout) == (signalled and code != 0), done.stdout + done.stderr
    assert ("scancel --signal=TERM 7" in done.stdout) == signalled
    assert done.returncode == code, done.stderr
    if "torchrun" in job:
        ran = re.findall(r"-m stages\.(\w+)", done.stdout)
        recorded = re.findall(r"dvc commit --force (\w+)", done.stdout)
        assert ran == (["tokenize", "train", "sample", "reference"] if code == 0 else ["tokenize"])
        assert recorded == (ran if code == 0 else [])
