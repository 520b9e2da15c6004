"""The list of a command's commands, each with its whole first line."""

from typing import Any

from typer.core import TyperGroup


class WholeSummaries(TyperGroup):
    """A group whose list of commands has the first sentence of each, whole: click cuts it after 45 characters."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """As click does."""
        for command in self.commands.values():
            command.short_help = (
                command.short_help or " ".join((command.help or "").split()).partition(". ")[0].rstrip(".") + "."
            )
        super().format_commands(ctx, formatter)
