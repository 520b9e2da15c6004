"""Methods on the command line: their list, and a command that takes their knobs as options.

`--temperature 3` is `sample.maskgit.temperature`. Only the methods know which knobs there are, so none is named here.
They are asked only if such a command runs or prints its help, since that imports PyTorch.
"""

import importlib
from typing import Any

from typer import Context
from typer.core import TyperCommand

from vqlcmd.runtime.errors import ConfigError

GIVEN = "vqlcmd.knobs"


class KnobCommand(TyperCommand):
    """A command that sets every `--NAME VALUE` that is not an option of its own aside, for `given`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the rest like click. Raises ConfigError for an option that is neither the command's nor a method's."""
        own = {name for param in self.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
        rest, knobs, waiting = [], {}, list(args)
        while waiting:
            word = waiting.pop(0)
            name, equals, value = word.partition("=")
            if not name.startswith("--") or name == "--" or name in own:
                rest.append(word)
                continue
            if not equals and not waiting:
                raise ConfigError(f"{name} needs a value: {name} VALUE")
            knobs[name.removeprefix("--").replace("-", "_")] = value if equals else waiting.pop(0)
        ctx.meta[GIVEN] = _checked(knobs, sorted(own)) if knobs else {}
        return super().parse_args(ctx, rest)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes help for the command's own options, and for those of the methods."""
        super().format_options(ctx, formatter)
        with formatter.section("Options of single methods, sample.METHOD in params.yaml"):
            formatter.write_dl(
                [
                    (f"--{name.replace('_', '-')} {method}", field.description or "")
                    for method, model in _methods().items()
                    for name, field in model.model_fields.items()
                ]
            )


def print_methods() -> None:
    """List the methods, which `method` in params.yaml or `dvc exp run -S method=NAME` selects, with their samplers."""
    from vqlcmd.methods import METHODS, method_class

    for name in METHODS:
        about = importlib.import_module(f"vqlcmd.methods.{name}").__doc__ or ""
        print(f"{name:16} {about.splitlines()[0]}")
        print(f"{'':16} sampler: {' | '.join(method_class(name).samplers)}")


def given(context: Context) -> dict[str, Any]:
    """The knobs on the command line of a KnobCommand; whether the model's method has them is not checked yet."""
    return context.meta[GIVEN]


def _methods() -> dict[str, Any]:
    from vqlcmd import methods

    return methods.knobs()


def _checked(knobs: dict[str, str], own: list[str]) -> dict[str, Any]:
    """{knob: value} for the texts.

    Raises ConfigError for a knob that no method has, or a value that no method with this knob accepts.
    """
    import difflib

    from pydantic import TypeAdapter, ValidationError

    from vqlcmd.params.errors import rule

    values: dict[str, Any] = {}
    for name, text in knobs.items():
        option = f"--{name.replace('_', '-')}"
        fields = [model.model_fields[name] for model in _methods().values() if name in model.model_fields]
        known = [*own, *(f"--{each.replace('_', '-')}" for model in _methods().values() for each in model.model_fields)]
        if not fields:
            close = difflib.get_close_matches(option, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else "--help lists the options"
            if (argument := option.removeprefix("--")) in own:
                remedy = f"write {argument.upper()} alone, without --{argument}"
            raise ConfigError(f"{option} is no option, nor a knob of a method: {remedy}")
        problems = []
        for field in fields:
            try:
                values[name] = TypeAdapter(field.rebuild_annotation()).validate_strings(text)
            except ValidationError as error:
                problems.append(rule(error.errors()[0]))
        if name not in values:
            raise ConfigError(f"{option} is {text}, but must be {problems[0]}")
    return values
