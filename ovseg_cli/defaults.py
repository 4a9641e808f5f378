"""A group of commands one of which is meant where none is named: `ovseg eval voc --data ...`."""

from typing import Any, ClassVar

from typer.core import TyperGroup


class DefaultCommandGroup(TyperGroup):
    """A group whose command `default` may be left out.

    Usage and errors name that command only where the group's help lists it.
    """

    default: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default in front unless a command, or the group's own help, is asked for."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command, by no name if it is hidden."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if command is not None and command.hidden else name, command, rest
