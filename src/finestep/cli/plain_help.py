"""`--help` in plain text with the options in groups; it loads no rich, which alone would take as long as all the rest."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import typer
from typer.core import TyperCommand, TyperGroup

from finestep.cli.usual_options import usual_titles

if TYPE_CHECKING:
    from typer._click.core import Context, Parameter
    from typer._click.formatting import HelpFormatter
    from typer.core import TyperOption

OTHER = "Other"
EVERYTHING = "finestep.help_all"
"""Key in a context's `meta`: all options are shown."""
WIDEST = 110
NAME_COLUMN = 30
"""Characters for the names of options; longer ones have a line of their own."""


class QuickGroup(TyperGroup):
    """A group whose own `--help` is False when it is not given: at None typer loads pydantic, which takes 0.1 s."""

    def get_help_option(self, ctx: Context) -> TyperOption | None:
        """The option of the group itself."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


class GroupedCommand(TyperCommand):
    """A command whose help has its options in groups: the usual ones, or with `--help-all` all of them.

    All options have a section for each `rich_help_panel`, in the order of their first option.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: object
    ) -> Context:
        """The context of a run, with room for wide lines of help."""
        return super().make_context(info_name, args, parent, **{"max_content_width": WIDEST, **extra})

    def get_params(self, ctx: Context) -> list[Parameter]:
        """The options, and `--help-all` where `--help` does not show all of them."""
        found = super().get_params(ctx)
        plain = self.get_help_option(ctx)
        return [*found, _help_all(plain)] if plain is not None and usual_titles(self.name) else found

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write arguments, then the groups; options without one come last."""
        usual = {} if ctx.meta.get(EVERYTHING) else usual_titles(self.name)
        sections = _usual(self.get_params(ctx), ctx, usual) if usual else _sections(self.get_params(ctx), ctx)
        names = [name for rows in sections.values() for name, _ in rows]
        column = max((len(name) for name in names if len(name) <= NAME_COLUMN), default=0)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(column), text) for name, text in rows], col_max=column)


def _sections(parameters: list[Parameter], ctx: Context) -> dict[str, list[tuple[str, str]]]:
    """Title -> (name, help) of what may be given."""
    sections: dict[str, list[tuple[str, str]]] = {}
    other: list[tuple[str, str]] = []
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        is_argument = parameter.param_type_name == "argument"
        title = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None)
        (sections.setdefault(title, []) if title else other).append(record)
    return {**sections, **({OTHER if len(sections) > 1 else "Options": other} if other else {})}


def _usual(parameters: list[Parameter], ctx: Context, titles: dict[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Title -> (name, help) of the arguments, and of the usual options in the order in which they are listed."""
    told = {parameter.opts[0]: parameter.get_help_record(ctx) for parameter in parameters}
    records = {name: record for name, record in told.items() if record is not None}
    arguments = [p.opts[0] for p in parameters if p.param_type_name == "argument"]
    sections = {"Arguments": [records[name] for name in arguments if name in records]}
    for option, title in titles.items():
        sections.setdefault(title, []).append(records[option])
    num_more = len(records) - sum(map(len, sections.values())) - 2
    shown = [records[name] for name in ("--help", "--help-all") if name in records]
    name, _ = shown[-1]
    return {**sections, OTHER: [*shown[:-1], (name, f"Show {num_more} more options, and exit.")]}


def _help_all(plain: TyperOption) -> TyperOption:
    """The option that shows all of them, made from the command's own `--help`."""

    def show(ctx: Context, _: Parameter, wanted: bool) -> None:
        if wanted:
            ctx.meta[EVERYTHING] = True
            typer.echo(ctx.get_help())
            ctx.exit()

    option = copy.copy(plain)
    option.name, option.opts, option.callback, option.help = (
        "help_all",
        ["--help-all"],
        show,
        "Show all options and exit.",
    )
    return option
