"""What the page's process knows about a model, which is loaded in another process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vqlcmd.runtime.errors import ConfigError, shown


@dataclass(frozen=True)
class Setting:
    """A keyword of Generator.sample: its usual value, a line of help, and its range or choices."""

    name: str
    usual: Any
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """The value that `text` stands for. Raises ConfigError if it is of another kind; the range is not checked."""
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
    """What the page shows of a model, and what can be set.

    `summary` is a line about the model, `tables` are the names of the tables in which codes have neighbours, and
    `curves` is the file with its training's curves, None if there is none.
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
    """The names of all settings that any of the models has."""
    return list(dict.fromkeys(each.name for model in models for each in model.settings))


def named(folders: Sequence[str]) -> dict[str, str]:
    """{name: folder}, a name being the last part of the folder's path, or all of it if two end alike."""
    ends = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
    return {end if ends.count(end) == 1 else folder: folder for end, folder in zip(ends, folders, strict=True)}
