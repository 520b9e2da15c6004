"""What the page knows of a model, which is loaded in another process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vqlcmd.runtime.errors import ConfigError, shown


@dataclass(frozen=True)
class Setting:
    """A keyword of Generator.sample: its usual value, a line of help, and what it may be."""

    name: str
    usual: Any
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """The value that a word stands for. ConfigError where it is of another kind; its range is not checked."""
        kind = type(self.usual)
        if kind is bool:
            if text not in ("true", "false"):
                raise ConfigError(f"{self.name} is {shown(text)!r}, but must be true or false")
            return text == "true"
        try:
            return kind(text)
        except ValueError:
            rule = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{self.name} is {shown(text)!r}, but must be {rule}") from None


@dataclass(frozen=True)
class Description:
    """A model by what can be seen and set of it.

    `summary` is it in a line, `tables` are names of what its codes can be near in, `curves` is the file of its
    training's, where it lies.
    """

    method: str
    summary: str
    class_names: tuple[str, ...]
    settings: tuple[Setting, ...]
    seed: int
    codes: int
    tables: tuple[str, ...]
    supports_inpainting: bool
    curves: str | None


def names_of_settings(models: Iterable[Description]) -> list[str]:
    """Names of settings that any of the models has."""
    return list(dict.fromkeys(each.name for model in models for each in model.settings))


def named(folders: Sequence[str]) -> dict[str, str]:
    """Names for folders: the last part of each, or all of it where two end alike."""
    ends = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
    return {end if ends.count(end) == 1 else folder: folder for end, folder in zip(ends, folders, strict=True)}
