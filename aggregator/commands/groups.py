"""
Groups of commands: each command ends through `mistakes_are_printed`, and explains itself in words of people.

On a terminal the help is in panels and colours; elsewhere it is plain text. No summary of a command is cut.
"""

import os
import sys
from pathlib import Path
from typing import Any

from rich.markup import escape
from typer.core import TyperArgument, TyperGroup

from aggregator.commands.console import mistakes_are_printed

TRY, READ, OPERATE, CONTRACTS = "Try", "Read", "Operate", "Contracts"

_PANELS = (TRY, READ, OPERATE, CONTRACTS)
"""The headings under which the help lists commands, in this order."""

_METAVARS: dict[Any, str] = {int: "N", float: "N", str: "TEXT", Path: "FILE"}
"""What stands for a value in the help, by the type of the value."""


class Group(TyperGroup):
    """Some commands: the error that ends one of them is printed, also where its output cannot be written."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the call, or print the help that it asks for."""
        with mistakes_are_printed():
            _dress(self)
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was called."""
        with mistakes_are_printed():
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of their headings."""
        return sorted(super().list_commands(ctx), key=lambda name: _place(self.commands[name]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, dressed for who reads its help."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _dress(command)
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of the commands in plain text: a section for each heading, and whole summaries."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            sections.setdefault(_panel(command) or "Commands", []).append((name, _summary(command)))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def _panel(command: Any) -> str:
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else ""


def _place(command: Any) -> int:
    return _PANELS.index(_panel(command)) if _panel(command) in _PANELS else len(_PANELS)


def _summary(command: Any) -> str:
    text = command.short_help or (command.help or "").strip().partition("\n\n")[0]
    return " ".join(text.split())


def _dress(command: Any) -> None:
    """Name values as people do; on a terminal, let rich print the help, in which brackets are brackets."""
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda **_: None  # type: ignore[method-assign]  # its name says enough
        elif parameter.metavar is None:
            annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
            parameter.metavar = "" if parameter.is_flag else _METAVARS.get(annotation)
    if command.rich_markup_mode is None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        command.rich_markup_mode = "rich"
        for one in (command, *command.params):
            one.help = escape(_paragraphs(one.help)) if getattr(one, "help", None) else None
        command.epilog = escape(command.epilog) if command.epilog else None


def _paragraphs(text: str) -> str:
    """A text whose paragraphs are lines, so that they are broken where the terminal ends."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))
