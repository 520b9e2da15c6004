"""The configuration beside a checkpoint: found, compared with the tensors, and believed in what these do not show."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests import naive
from tests.checkpoints import refused, tamings
from tests.factory import normal
from tests.tokenizers import SMALL, seeded
from vqlcmd.pretrained import authors_config, convert
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import vqgan

DDCONFIG: dict[str, Any] = {
    "double_z": False,
    "resolution": 16,
    "in_channels": 3,
    "ch": 32,
    "ch_mult": [1, 2, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [8],
    "z_channels": 24,
}
PARAMS: dict[str, Any] = {"embed_dim": 8, "n_embed": 32, "ddconfig": DDCONFIG, "lossconfig": {"target": "x"}}


def yaml_of(inner: dict[str, Any]) -> str:
    return yaml.safe_dump({"model": {"target": "taming.models.vqgan.VQModel", "params": inner}})


def changed(name: str, value: Any) -> str:
    return yaml_of({**PARAMS, name: value} if name in PARAMS else {**PARAMS, "ddconfig": {**DDCONFIG, name: value}})


@pytest.mark.parametrize(
    "place",
    [
        "configs/model.yaml",
        "configs/2021-04-03T19-39-50_cin-project.yaml",
        "ckpts/model.yaml",
        "ckpts/config.yaml",
        "ckpts/configs/2020-11-09T13-31-51_sflckr-project.yaml",
        "ckpts/config.json",
    ],
)
def test_the_configuration_beside_a_file_is_found(tmp_path: Path, place: str) -> None:
    path = tamings(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(yaml_of(PARAMS))
    found, provenance = convert.read(path)
    assert found.architecture == SMALL
    assert provenance["config"] == {"file": Path(place).name, "sha256": sha256(tmp_path / place)}


def test_a_link_into_a_store_has_its_configuration_beside_the_link(tmp_path: Path) -> None:
    """Hugging Face's cache is made of such links."""
    blob = tamings(tmp_path).rename(tmp_path / "0a1b")
    (tmp_path / "ckpts" / "last.ckpt").symlink_to(blob)
    (tmp_path / "ckpts" / "config.json").write_text(json.dumps({"resolution": 16, "ch": 32}))
    found, provenance = convert.read(tmp_path / "ckpts" / "last.ckpt")
    assert found.architecture == SMALL
    assert provenance["file"] == "last.ckpt"


def test_of_several_runs_the_latest_configuration_counts_and_files_of_others_do_not(tmp_path: Path) -> None:
    path = tamings(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "2021-01-project.yaml").write_text(changed("n_embed", 77))
    (tmp_path / "configs" / "2022-01-project.yaml").write_text(yaml_of(PARAMS))
    (tmp_path / "ckpts" / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 9}))
    (tmp_path / "ckpts" / "model.yaml").write_text("{ not yaml")
    found = authors_config.beside(path)
    assert found is not None
    assert found.name == "2022-01-project.yaml"


def test_the_first_stage_of_a_larger_configuration_is_the_one_that_counts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        yaml_of(
            {
                "first_stage_config": {"target": "x", "params": PARAMS},
                "cond_stage_config": {"params": {**PARAMS, "n_embed": 99}},
                "unet_config": {"params": {"attn_resolutions": [1]}},
            }
        )
    )
    claims = authors_config.parse(tmp_path / "a.yaml")
    assert (claims["n_embed"], claims["ch_mult"], claims["resolution"]) == (32, (1, 2, 1), 16)


@pytest.mark.parametrize(
    ("name", "value", "pieces"),
    [
        ("n_embed", 1024, ["n_embed is 1024 in the configuration, but 32 by the tensors"]),
        ("ch_mult", [1, 1, 2], ["ch_mult is (1, 1, 2)", "(1, 2, 1)"]),
        ("attn_resolutions", [4], ["attn_resolutions is (4,)", "(8,)"]),
        ("attn_resolutions", [], ["attn_resolutions is ()", "(8,)"]),
        ("num_res_blocks", 2, ["num_res_blocks is 2"]),
        ("resolution", 18, ["18 is no multiple of 4"]),
        ("z_channels", "many", ["z_channels is 'many'"]),
        # These three were a traceback, and taken for a yes.
        ("attn_resolutions", 8, ["attn_resolutions is 8, but must be a list of whole numbers"]),
        ("ch_mult", 2, ["ch_mult is 2, but must be a list"]),
        ("codebook_l2_norm", "no", ["unit_codes is 'no', but must be true or false"]),
        ("double_z", True, ["double_z is True"]),
        ("resamp_with_conv", False, ["resamp_with_conv is False"]),
    ],
)
def test_a_configuration_that_says_otherwise_than_the_tensors_is_refused(
    tmp_path: Path, name: str, value: Any, pieces: list[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(changed(name, value))
    with pytest.raises(ConfigError) as caught:
        convert.read(tamings(tmp_path), config=config)
    assert "\n" not in str(caught.value)
    for piece in (str(config), *pieces):
        assert piece in str(caught.value)


def test_a_named_configuration_must_be_one(tmp_path: Path) -> None:
    path = tamings(tmp_path)
    with pytest.raises(ConfigError, match=r"vqgan.config is .*none.yaml, which is not a file"):
        convert.read(path, config=tmp_path / "none.yaml")
    (tmp_path / "other.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"vqgan.config is .*other.yaml, which tells of no tokenizer"):
        convert.read(path, config=tmp_path / "other.yaml")


def test_norm_groups_that_no_tensor_tells_are_asked_for_by_name(tmp_path: Path) -> None:
    narrow = dataclasses.replace(SMALL, ch=24, variant=vqgan.Variant(groups=8))
    path = tamings(tmp_path, seeded(narrow).state_dict())
    refused(ConfigError, path, "24 channels are not in 32 norm groups", "norm_num_groups in vqgan.config")
    (tmp_path / "config.json").write_text(json.dumps({"norm_num_groups": 8, "z_channels": 24}))
    found, _ = convert.read(path, config=tmp_path / "config.json")
    images = normal(2, 3, 16, 16).clamp(-1, 1)
    assert torch.equal(found.encode(images), seeded(narrow).encode(images))


def test_llamagens_vectors_keep_their_length_where_its_configuration_says_so(tmp_path: Path) -> None:
    held = naive.LlamaGen().w.held
    torch.save({"model": held}, tmp_path / "vq.pt")
    assert convert.read(tmp_path / "vq.pt")[0].architecture.variant.unit_codes
    (tmp_path / "config.json").write_text(json.dumps({"codebook_l2_norm": False, "z_channels": 10}))
    found, _ = convert.read(tmp_path / "vq.pt")
    assert not found.architecture.variant.unit_codes
    assert torch.equal(found.codebook, held["quantize.embedding.weight"])
