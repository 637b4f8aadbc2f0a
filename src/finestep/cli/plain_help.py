"""`--help` in plain text with the options in groups; it loads no rich, which alone would take as long as all the rest."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

OTHER = "Other"
WIDEST = 110
NAME_COLUMN = 30
"""Characters for the names of options; longer ones have a line of their own."""


class QuickGroup(TyperGroup):
    """A group whose own `--help` is False when it is not given: at None typer loads pydantic, which takes 0.1 s."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option of the group itself."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


class GroupedCommand(TyperCommand):
    """A command whose help has a section for each `rich_help_panel` of its options, in the order of their first option."""

    def __init__(self, *arguments: Any, **options: Any):
        settings = {"max_content_width": WIDEST, **(options.pop("context_settings", None) or {})}
        super().__init__(*arguments, context_settings=settings, **options)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the groups; options without one come last."""
        sections = _sections(self.get_params(ctx), ctx)
        names = [name for rows in sections.values() for name, _ in rows]
        column = max((len(name) for name in names if len(name) <= NAME_COLUMN), default=0)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(column), text) for name, text in rows], col_max=column)


def _sections(parameters: list[Any], ctx: Any) -> dict[str, list[tuple[str, str]]]:
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
