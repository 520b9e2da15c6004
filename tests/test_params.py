"""params.yaml: what is read as what, and one line for each thing that is wrong."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.factory import ROOT, params
from vqlcmd.params import ModelParams, Params, load_params, load_run
from vqlcmd.runtime.errors import ConfigError

FILE = ROOT / "presets" / "digits.yaml"
"""Not params.yaml, which is somebody's own after the README's commands."""
REMOVE = object()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The demo's values with these changes, given as dotted keys."""
    values = load_params(FILE).model_dump()
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        if value is REMOVE:
            del inner[last]
        else:
            inner[last] = value
    return values


def load(folder: Path, changes: dict[str, Any]) -> Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(changed(changes)), encoding="utf-8")
    return load_params(path)


def test_params_yaml_of_this_repository_is_read() -> None:
    found = load_run(ROOT / "params.yaml")
    assert type(found.lambda_rec) is float
    assert type(found.train_steps) is int
    assert found.schedule.log_snr_min < found.schedule.log_snr_max


# What is changed, and the pieces that the one line must hold: key, value, rule, remedy.
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("an unknown key", {"lambda_dif": 1.0}, ["`lambda_dif`", "not a parameter", "did you mean `lambda_diff`?"]),
    ("an unknown key in a section", {"train.cilp": 1.0}, ["`train.cilp`", "did you mean `clip`?"]),
    ("a key like no other", {"qqq": 1}, ["`qqq`", "not a parameter", "remove it"]),
    ("a missing key", {"drop": REMOVE}, ["`drop`", "missing", "add it"]),
    ("a missing key in a section", {"vqgan.fit.limit": REMOVE}, ["`vqgan.fit.limit`", "missing", "add it"]),
    ("a missing section", {"schedule": REMOVE}, ["`schedule`", "missing", "add it"]),
    ("text for a number", {"s": "left"}, ["`s`", "'left'", "number", "-S s=VALUE"]),
    ("a colour that is none", {"images.background": "whit"}, ["`images.background`", "'whit'", "'#rrggbb'"]),
    ("a colour with an alpha value", {"images.background": "#ffffff00"}, ["`images.background`", "'#ffffff00'"]),
    ("a number for a switch", {"images.flip": 1}, ["`images.flip`", "1", "boolean", "-S images.flip="]),
    ("a switch for a number", {"lambda_cm": True}, ["`lambda_cm`", "True", "number", "-S lambda_cm="]),
    ("a section that is a number", {"train": 3}, ["`train`", "3", "dictionary"]),
    ("a part for a whole number", {"train_steps": 10.5}, ["`train_steps`", "10.5", "integer", "-S train_steps="]),
    ("none of a count", {"sample_steps": 0}, ["`sample_steps`", "0", "greater than 0", "-S sample_steps="]),
    ("a negative weight", {"lambda_rec": -1.0}, ["`lambda_rec`", "-1.0", "greater than or equal to 0", "-S"]),
    ("a share of one", {"drop": 1.0}, ["`drop`", "1.0", "less than 1", "-S drop="]),
    ("a share in a list", {"train.betas": [0.9, 1.5]}, ["`train.betas.1`", "1.5", "less than 1"]),
    ("one beta", {"train.betas": [0.9]}, ["`train`", "betas", "two numbers"]),
    ("an unknown choice", {"sampler": "heun"}, ["`sampler`", "'heun'", "'ancestral', 'ddim', ", "-S sampler="]),
    ("an unknown schedule", {"schedule.name": "cosin"}, ["`schedule.name`", "'cosin'", "'cosine' or 'linear'", "-S"]),
    ("a schedule without a shift", {"schedule.name": "linear", "s": -1.0}, ["linear", "no shift", "set s to 0"]),
    (
        "an unknown schedule of a chain",
        {"discrete.schedule.vq_diffusion": "new"},
        ["`discrete.schedule.vq_diffusion`", "'new'", "'paper' or 'released'"],
    ),
    (
        "an unknown method",
        {"method": "foo"},
        ["`method`", "'foo'", "'lcmd', 'd3pm',", "-S method="],
    ),
    ("a knob of no method", {"sample.maskgit.warmth": 1}, ["`sample.maskgit.warmth`", "not a parameter"]),
    ("a knob out of range", {"sample.vq_diffusion.truncation": 0.0}, ["`sample.vq_diffusion.truncation`", "0.0", "-S"]),
    ("a missing knob", {"sample.maskgit.temperature": REMOVE}, ["`sample.maskgit.temperature`", "missing", "add it"]),
    ("no number", {"s": math.nan}, ["`s`", "nan", "finite number", "-S s="]),
    ("no number for a share", {"drop": math.nan}, ["`drop`", "nan", "-S drop="]),
    ("an infinite weight", {"lambda_ce": math.inf}, ["`lambda_ce`", "inf", "finite number"]),
    ("an infinite end", {"schedule.log_snr_max": math.inf}, ["`schedule.log_snr_max`", "inf", "finite number"]),
    ("too large a seed", {"seed": 2**32}, ["`seed`", str(2**32), "less than 4294967296"]),
    ("codes past 16 bits", {"vqgan.n_embed": 65_537}, ["`vqgan.n_embed`", "65537", "less than or equal to 65536"]),
    ("heads that do not divide", {"network.heads": 3}, ["`network`", "width 128", "multiple of heads 3", "choose"]),
    (
        "rotary positions of an odd width",
        {"network.heads": 128, "network.positions": "rotary"},
        ["`network`", "128 heads is 1", "even number", "sinusoidal"],
    ),
    ("ends in the wrong order", {"schedule.log_snr_min": 7.0}, ["`schedule`", "log_snr_min", "below log_snr_max"]),
    ("equal ends", {"schedule.log_snr_min": 6.0}, ["`schedule`", "log_snr_min", "below log_snr_max"]),
    (
        "guidance without classes",
        {"guidance": 1.5, "train.use_classes": False},
        ["guidance 1.5", "needs classes", "set train.use_classes to true or guidance to 0"],
    ),
    ("an image size that does not divide", {"images.size": 18}, ["images.size 18", "multiple of 4", "vqgan.ch_mult"]),
    (
        "mirror images twice",
        {"images.crop": "ten_crop", "images.flip": True},
        ["`images`", "ten_crop", "flip to false"],
    ),
    ("ten crops without a margin", {"images.crop": "ten_crop", "images.size": 8}, ["`images`", "size 8", "10 or more"]),
    (
        "the codebook at another size",
        {"embedding": "codebook", "embedding_dim": 32},
        ["embedding_dim 32", "vqgan.embed_dim 16", "`embedding: codebook`"],
    ),
    (
        "nothing to learn",
        {"lambda_rec": 0, "lambda_diff": 0, "lambda_cm": 0, "lambda_ce": 0},
        ["lambda_rec", "lambda_diff", "lambda_cm", "lambda_ce", "all 0", "set one above 0"],
    ),
]


@pytest.mark.parametrize(("changes", "pieces"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_one_line_with_key_value_rule_and_remedy(
    tmp_path: Path, changes: dict[str, Any], pieces: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, changes)
    line = str(caught.value)
    assert len(line.splitlines()) == 1, line
    assert line.startswith(f"{tmp_path / 'params.yaml'}: ")
    for piece in pieces:
        assert piece in line


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        pytest.param(
            {"schedule.log_snr_min": 7.5},
            ["7.5"],
        ),
        pytest.param(
            {"train.betas": [0.25]},
            ["0.25"],
        ),
        pytest.param(
            {"dataset": "a b"},
            ["must be a name", "letters"],
        ),
    ],
)
def test_lines_about_several_values_name_them(tmp_path: Path, changes: dict[str, Any], pieces: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, changes)
    for piece in pieces:
        assert piece in str(caught.value)


def test_several_wrong_things_are_several_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"drop": 1.5, "network.width": -4, "lambda": 1, "vqgan.ch": REMOVE})
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for key in ("`drop`", "`network.width`", "`lambda`", "`vqgan.ch`"):
        assert sum(key in line for line in lines) == 1, lines


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("1e-05", 1e-5), ("1E5", 1e5), ("2.5e-3", 2.5e-3), ("1.e3", 1e3), (".5", 0.5), ("3", 3.0)],
)
def test_every_spelling_of_a_float_is_a_number(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "params.yaml"
    lines = FILE.read_text(encoding="utf-8").splitlines()
    changed = [f"  embedding_lr_scale: {text}" if line.startswith("  embedding_lr_scale:") else line for line in lines]
    path.write_text("\n".join(changed), encoding="utf-8")
    found = load_params(path).train.embedding_lr_scale
    assert type(found) is float
    assert found == value


@pytest.mark.parametrize("text", ["1000", "1000.0", "1e3", "1E+3"])
def test_every_spelling_of_a_whole_number_is_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    lines = FILE.read_text(encoding="utf-8").splitlines()
    path.write_text(
        "\n".join(f"train_steps: {text}" if line.startswith("train_steps:") else line for line in lines),
        encoding="utf-8",
    )
    found = load_params(path).train_steps
    assert type(found) is int
    assert found == 1000


@pytest.mark.parametrize("key", ["bound.levels", "vqgan.n_embed", "images.size"])
def test_every_whole_number_may_arrive_with_a_point(tmp_path: Path, key: str) -> None:
    """`-S bound.levels=1e2` arrives as 100.0."""
    load(tmp_path, {key: 64.0})


def test_a_file_that_is_missing_or_no_yaml_or_empty_is_one_line_too(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for text, words in [
        (None, "is missing"),
        ("a: [1", "is not YAML"),
        ("", "holds no parameters"),
        ("- 1", "holds no"),
    ]:
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=words) as caught:
            load_params(path)
        assert len(str(caught.value).splitlines()) == 1
        assert str(path) in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_params(path)


def test_parameters_are_frozen() -> None:
    found = params()
    with pytest.raises(ValidationError, match="frozen"):
        found.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        found.train.clip = 2.0


def test_the_model_part_holds_what_shapes_a_model_and_nothing_else() -> None:
    part = params(lambda_cm=0.25).model_part()
    assert type(part) is ModelParams
    assert part.lambda_cm == 0.25
    assert set(part.model_dump()) == set(ModelParams.model_fields)
    # How images are sampled, judged and read does not change a trained model's name.
    assert params(sampler="ddim", guidance=1.0, sample={"count": 3}).model_part() == params().model_part()


@pytest.mark.parametrize("text", ["seed: 2024-13-45\n", "[" * 5000])
def test_yaml_that_its_reader_trips_over_is_one_line(tmp_path: Path, text: str) -> None:
    """A date that is none, and brackets without end, were tracebacks."""
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"params\.yaml is not YAML"):
        load_params(path)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("train.embedding_lr_scale", "embedding_rate"),
        ("train.final_lr_ratio", "final_rate"),
        ("vqgan.fit.decoder_only_fraction", "painting_share"),
        ("reference.proxy", "judge"),
        ("sample.maskgit", "temperature"),
    ],
)
def test_a_key_under_its_old_name_is_one_line_with_the_new_one(tmp_path: Path, new: str, old: str) -> None:
    section = new.rpartition(".")[0]
    with pytest.raises(ConfigError, match=f"`{section}.{old}` is called `{new}.* now: rename it$"):
        load(tmp_path, {new: REMOVE, f"{section}.{old}": 1.0})


def test_old_values_are_one_line_with_the_new_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'judge', which is called 'proxy' now"):
        load(tmp_path, {"evaluate.features": "judge"})
    with pytest.raises(ConfigError, match=r"`discrete.schedule` is called `discrete.schedule.vq_diffusion` now"):
        load(tmp_path, {"discrete.schedule": "released"})


def test_a_key_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    """The last one counted, without a word."""
    path = tmp_path / "params.yaml"
    path.write_text(f"{FILE.read_text(encoding='utf-8')}\nseed: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="`seed` is there twice, again in line"):
        load_params(path)


def test_a_long_value_is_cut_and_what_a_terminal_would_obey_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"method": "\x1b[31m" * 100_000})
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", sorted((ROOT / "presets").glob("d*.yaml")), ids=lambda path: path.stem)
def test_dvc_changes_the_one_line_that_an_experiment_sets(tmp_path: Path, path: Path) -> None:
    """It writes null as nothing, and rewrote every line with one."""
    from dvc.utils.serialize import modify_yaml

    before = path.read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(before, encoding="utf-8")
    with modify_yaml(str(tmp_path / "params.yaml")) as values:
        values["drop"] = 0.3
    after = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if line not in before.splitlines()] == [
        line.replace("0.2", "0.3") for line in before.splitlines() if line.startswith("drop:")
    ]
