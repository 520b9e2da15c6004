"""A visitor stops their own job, and no one else's; and without the extra the command says what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

from vqlcmd.page.jobs import Jobs, Stopped


def test_stop_reaches_the_job_that_runs_and_the_next_one_begins_anew() -> None:
    jobs = Jobs()
    jobs.begin("mine")
    jobs.begin("yours")
    mine, yours = jobs.stopped("mine"), jobs.stopped("yours")
    jobs.stop("mine")
    assert mine()
    assert not yours()
    jobs.begin("mine")
    assert not jobs.stopped("mine")()


def test_a_job_that_is_stopped_in_the_queue_does_not_begin() -> None:
    jobs = Jobs()
    jobs.begin("mine")
    jobs.stop("mine")
    with pytest.raises(Stopped, match="stopped before it began"):
        jobs.stopped("mine")


def test_who_closes_the_page_leaves_no_job_behind() -> None:
    jobs = Jobs()
    jobs.begin("mine")
    running = jobs.stopped("mine")
    jobs.leave("mine")
    assert running()
    with pytest.raises(Stopped):
        jobs.stopped("mine")
    jobs.stop("nobody")


def test_without_gradio_the_command_is_one_line_that_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['gradio'] = None; sys.argv = ['vqlcmd', 'page']\n"
        "from vqlcmd.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "vqlcmd: `vqlcmd page` needs Gradio, which is not installed: pip install 'vqlcmd[page]'\n"
