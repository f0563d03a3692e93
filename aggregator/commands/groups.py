"""
Groups of commands: each command ends through `mistakes_are_printed`, and explains itself in words of people.

On a terminal the help is in panels and colours; elsewhere it is plain text. No summary of a command is cut.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
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


_SPECIAL = re.compile(r"[\s!\"#$&'()*;<>?\[\\\]^`{|}~]")
"""What bash does not take for itself."""


_SPLITS = ":="
"""Characters of keys at which bash splits words."""

_JOINED = "_AGGREGATOR_JOINED"


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


def keep_last_blank(environment: MutableMapping[str, str]) -> None:
    """Put a blank that ends an unfinished word in quotes: after a backslash, typer takes the word for a whole one."""
    typed = environment.get("_TYPER_COMPLETE_ARGS", "")
    if re.search(r"(?<!\\)(\\\\)*\\ $", typed):
        environment["_TYPER_COMPLETE_ARGS"] = f'{typed[:-2]}" "'


def join_words(environment: MutableMapping[str, str]) -> None:
    """
    Join the words that bash splits at : and =, which keys have (COMP_WORDBREAKS); an option and its value stay apart.

    bash inserts what follows the last of these, so the variable `_JOINED` says that the unfinished word was joined.
    """
    at = environment.get("COMP_CWORD", "")
    if environment.get("_AGGREGATOR_COMPLETE") != "complete_bash" or not at.isdecimal():
        return
    words, place, ends, joins = list[str](), int(at), False, False
    for number, word in enumerate(environment.get("COMP_WORDS", "").split("\n")):
        splits = bool(word) and set(word) <= set(_SPLITS)
        joins = bool(words and word) and (splits or ends) and not words[-1].startswith("-")
        words[-1:] = [words[-1] + word] if joins else [*words[-1:], word]
        if number <= int(at):
            place -= joins
        if number == int(at) and joins:
            environment[_JOINED] = "yes"
        ends = splits
    environment.update(COMP_WORDS="\n".join(words), COMP_CWORD=str(place))


def _dress(command: Any) -> None:
    """
    Name values as people do, and quote those that bash completes.

    On a terminal rich prints the help, in which brackets are brackets.
    """
    if getattr(command, "is_dressed", False):
        return
    command.is_dressed = True
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda **_: None  # type: ignore[method-assign]  # its name says enough
            complete: Any = _fitting(parameter.shell_complete, os.environ)
            parameter.shell_complete = complete  # type: ignore[method-assign]
        elif parameter.metavar is None:
            annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
            parameter.metavar = "" if parameter.is_flag else _METAVARS.get(annotation)
    if command.rich_markup_mode is None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        command.rich_markup_mode = "rich"
        for one in (command, *command.params):
            one.help = escape(_paragraphs(one.help)) if getattr(one, "help", None) else None
        command.epilog = escape(command.epilog) if command.epilog else None


def _fitting(complete: Callable[[Any, str], list[Any]], environment: Mapping[str, str]) -> Callable[..., list[Any]]:
    """
    Completions such that the shell inserts each as it is, which leaves out those that are not one line.

    bash inserts them unquoted, unless a quote is open; typer cannot write a quote or a backslash for zsh.
    """
    shell = environment.get("_AGGREGATOR_COMPLETE", "").removeprefix("complete_")
    words, at = environment.get("COMP_WORDS", "").split("\n"), environment.get("COMP_CWORD", "")
    is_open = at.isdecimal() and "".join(words[int(at) : int(at) + 1]).startswith(("'", '"'))

    def fitting(ctx: Any, incomplete: str) -> list[Any]:
        items = [item for item in complete(ctx, incomplete) if str(item.value).isprintable()]
        if shell == "zsh":
            return [item for item in items if not set("\\'\"") & set(str(item.value))]
        typed = max(map(incomplete.rfind, _SPLITS)) + 1 if environment.get(_JOINED) else 0
        for item in items if shell == "bash" and not is_open else ():
            item.value = _SPECIAL.sub(r"\\\g<0>", str(item.value)[typed:])
        return items

    return fitting


def _paragraphs(text: str) -> str:
    """A text whose paragraphs are lines, so that they are broken where the terminal ends."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))
