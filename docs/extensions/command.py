"""The page of the command, made of the command itself."""

from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx

from lsdask import cli

HEAD = """# The command

Each step is a command. `lsdask COMMAND --help` says what is written here; `lsdask --install-completion` makes the shell
complete commands and options.

What lsdask raises on purpose, and what a disk refuses, is printed as one line, and the exit code is 2. A run that ends
with tiles not done names them, and exits with 1. Ctrl-C ends a command with 130. A line beginning `lsdask: note:`
says what to look at, and nothing failed.
"""


def write(app: Sphinx) -> None:
    """Write the page if it has changed."""
    path = Path(app.srcdir) / "reference" / "command.md"
    path.parent.mkdir(exist_ok=True)
    text = page(typer.main.get_command(cli.app))
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def page(group: Any) -> str:
    """The page, in Markdown: a section for each command, in the order of the work."""
    context = group.make_context("lsdask", ["info"], resilient_parsing=True)
    commands = [group.get_command(context, name) for name in group.list_commands(context)]
    return "\n".join([HEAD, *map(section, commands)])


def section(command: Any) -> str:
    """What a command does, takes and can be told."""
    arguments = [part for part in command.params if part.param_type_name == "argument"]
    options = [part for part in command.params if part.param_type_name == "option"]
    asked = [f"{part.opts[0]} {str(part.name).upper()}" for part in options if part.required]
    usage = " ".join(["lsdask", command.name, "[OPTIONS]", *asked, *(_metavar(part) for part in arguments)])
    parts = [f"## lsdask {command.name}\n", f"{command.help}\n", f"```sh\n{usage}\n```\n"]
    if arguments:
        parts.append(_table("argument", [(f"`{_metavar(part)}`", part) for part in arguments]))
    parts.append(_table("option", [(_flags(part), part) for part in options]))
    return "\n".join(parts)


def _table(head: str, rows: list[tuple[str, Any]]) -> str:
    lines = [f"| {head} | meaning | default |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {left} | {_help(part)} | {_default(part)} |" for left, part in rows)]) + "\n"


def _metavar(argument: Any) -> str:
    return str(argument.name).upper() + ("..." if argument.nargs == -1 else "")


def _flags(option: Any) -> str:
    return ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])


def _help(part: Any) -> str:
    return str(part.help or "").replace("|", "\\|").replace("\n", " ")


def _default(part: Any) -> str:
    if part.required:
        return "needed"
    if part.secondary_opts:
        return f"`{(part.opts if part.default else part.secondary_opts)[0]}`"
    if part.default is False or part.default in (None, ""):
        return ""
    return f"`{part.default}`"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
