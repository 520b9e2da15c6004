"""A list of commands, each with its whole first sentence."""

from typing import Any

from typer.core import TyperGroup


class WholeSummaries(TyperGroup):
    """A group whose list of commands shows their whole first sentences, which click cuts after 45 characters."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list as click does, but with whole sentences."""
        for command in self.commands.values():
            command.short_help = (
                command.short_help or " ".join((command.help or "").split()).partition(". ")[0].rstrip(".") + "."
            )
        super().format_commands(ctx, formatter)
