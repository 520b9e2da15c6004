"""Reads YAML as DVC writes it."""

import re
from pathlib import Path
from typing import Any

import yaml

from vqlcmd.runtime.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-05 as a number, as YAML 1.2 and `dvc exp run -S` write it; PyYAML reads a string.

    A duplicate key is an error, whereas PyYAML takes the last one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"`{key.value}` is there twice, again in line {line}: remove one")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> Any:
    """The document in a YAML file. Raises ConfigError if the file is missing or not YAML."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: copy one, for example `cp presets/digits.yaml {path}`") from None
    return parse_yaml(text, path)


def parse_yaml(text: str | bytes, where: object) -> Any:
    """The document in a YAML text. Raises ConfigError, which names `where`, if it is not YAML."""
    try:
        return yaml.load(text.decode() if isinstance(text, bytes) else text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or dates like 2024-13-45.
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
