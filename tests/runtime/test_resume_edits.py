"""A run whose code or parameters were edited finds its state, says what changed, and goes on only when told to."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.resume import SWITCH, Run, State

RUN = Run("train", {"seed": 0, "train": {"clip": 1.0}}, {"tokens": "abc"}, {"a.py": "1", "b.py": "2"})
EDITED = replace(RUN, code={"a.py": "1", "b.py": "3", "c.py": "4"})
CHANGED = replace(RUN, settings={"seed": 0, "train": {"clip": 2.0}})


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VQLCMD_STATE", str(tmp_path))
    monkeypatch.delenv(SWITCH, raising=False)
    return tmp_path


def half_done(run: Run = RUN, step: int = 7) -> None:
    with State.of(run) as state:
        state.save({"step": step})


def test_the_same_run_goes_on_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    half_done()
    with State.of(RUN) as state:
        assert state.load() == {"step": 7}
        assert state.edits == []
    assert capsys.readouterr() == ("", "")


def test_edited_code_is_named_and_the_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    half_done()
    with pytest.raises(DataError, match=r"b\.py, c\.py") as caught:
        State.of(EDITED).__enter__()
    assert f"{SWITCH}=train/{RUN.name}" in str(caught.value)
    assert f"{SWITCH}=new" in str(caught.value)
    with State.of(RUN) as state:
        assert state.load() == {"step": 7}


def test_the_switch_goes_on_across_the_edit_and_remembers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    half_done()
    monkeypatch.setenv(SWITCH, f"train/{RUN.name}")
    with State.of(EDITED) as state:
        assert state.load() == {"step": 7}
    monkeypatch.delenv(SWITCH)
    with State.of(EDITED) as state:
        (edit,) = state.edits
    assert edit == {"from": RUN.digest, "to": EDITED.digest, "files": ["b.py", "c.py"], "parameters": {}}


def test_beginning_anew_keeps_the_old_state_aside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_done()
    monkeypatch.setenv(SWITCH, "new")
    for number in (1, 2):
        with State.of(EDITED) as state:
            assert state.load() is None
            state.save({"step": number})
        assert list((root / "train" / f"{RUN.name}.{number}").glob("*.pt"))


def test_other_parameters_begin_at_the_start_and_name_the_run_that_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    half_done()
    with State.of(CHANGED) as state:
        assert state.load() is None
    assert f"train.clip 1.0 -> 2.0: {SWITCH}=train/{RUN.name} goes on with it" in capsys.readouterr().err
    monkeypatch.setenv(SWITCH, f"train/{RUN.name}")
    with State.of(CHANGED) as state:
        assert state.load() == {"step": 7}
        assert state.edits[0]["parameters"] == {"train.clip": [1.0, 2.0]}


@pytest.mark.parametrize(
    "contents", ["[]", "{}", "{", '{"run": [], "edits": []}', '{"run": {"stage": "train"}, "edits": []}']
)
def test_a_damaged_note_is_one_line_for_its_own_run_and_no_matter_to_others(root: Path, contents: str) -> None:
    half_done()
    note = root / "train" / RUN.name / "run.json"
    note.write_text(contents, encoding="utf-8")
    with State.of(CHANGED) as state:
        assert state.load() is None
    with pytest.raises(DataError, match=r"run\.json is .*: delete .*, which begins anew") as caught:
        State.of(RUN).__enter__()
    assert "\n" not in str(caught.value)
    (root / "train" / "gone").mkdir()
    (root / "train" / "gone" / "run.json").write_text(json.dumps({"run": asdict(RUN), "edits": []}), encoding="utf-8")
    (root / "train" / "gone" / "1-x.pt").touch()
    with State.of(replace(CHANGED, settings={})):
        assert not (root / "train" / "gone" / "lock").exists(), "whoever looks on leaves nothing in others' folders"


def test_a_run_on_other_inputs_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    half_done()
    monkeypatch.setenv(SWITCH, f"train/{RUN.name}")
    with pytest.raises(DataError, match="other inputs"):
        State.of(replace(CHANGED, inputs={"tokens": "xyz"})).__enter__()


def test_a_run_that_another_process_goes_on_with_is_neither_named_nor_taken_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with State.of(RUN) as state:
        state.save({"step": 1})
        with State.of(CHANGED):
            assert "clip" not in capsys.readouterr().err
        monkeypatch.setenv(SWITCH, f"train/{RUN.name}")
        with pytest.raises(DataError, match="in use"):
            State.of(CHANGED).__enter__()


@pytest.mark.parametrize("text", ["train", "train/../x", "train/.hidden", "train/"])
def test_a_switch_that_names_no_run_is_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, text)
    with pytest.raises(ConfigError, match=SWITCH):
        State.of(RUN).__enter__()


def test_the_switch_of_another_stage_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    half_done()
    monkeypatch.setenv(SWITCH, f"sample/{RUN.name}")
    with State.of(RUN) as state:
        assert state.load() == {"step": 7}


def test_the_last_two_states_are_kept_and_a_damaged_one_gives_way(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with State.of(RUN) as state:
        for step in (1, 2, 3):
            state.save({"step": step})
        files = sorted(state.directory.glob("*.pt"))
        assert len(files) == 2
        files[1].write_bytes(files[1].read_bytes()[:-100] + bytes(100))
        assert state.load() == {"step": 2}
        assert f"{files[1]} is damaged: the state before it is used" in capsys.readouterr().err
        state.save({"step": 4})
        assert state.load() == {"step": 4}
        for file in state.directory.glob("*.pt"):
            file.write_bytes(b"")
        with pytest.raises(DataError, match="every state in it is damaged"):
            state.load()
