"""Copy the surfaces that are whole to where the benchmarks read them, each with a card of facts; no text, no weights, no paths.

python publish.py [TASK...] --tasks DATA MADE --from DIR --to benchmarks/data/tasks

Without names all tasks of the list are looked at; a named one needs only its own model.
A surface is whole when its grid of full length, the further seeds about its best cell and both short lengths are measured. The card
holds what `recommend` is told of the model and the data, so that a benchmark can ask it again without either.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grid import cell_of, cells
from measure import SHIPPED
from tasks import plan_of, read_tasks

from finestep.flows.recommend import recommend
from finestep.recipe import Recipe
from finestep.rules.compose import Ask
from finestep.study import DataSpec
from finestep.survey.data_sample import data_facts
from finestep.survey.model import model_facts
from rows import read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="TASK", help="names of the list; all of them unless given")
    parser.add_argument("--tasks", type=Path, nargs=2, required=True, metavar=("DATA", "MADE"))
    parser.add_argument("--from", type=Path, required=True, dest="source")
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    data, made = options.tasks
    listed = read_tasks()
    if unknown := sorted(set(options.names) - set(listed)):
        parser.error(
            f"not in the list of tasks: {', '.join(unknown)}; the names are the keys of benchmarks/data/tasks/tasks.json"
        )
    for name in options.names or listed:
        task = listed[name]
        plan = plan_of(task, data=data, made=made, shipped=SHIPPED)
        rows = read(options.source / f"{name}.csv")
        if not is_whole(plan, rows):
            continue
        text = (options.source / f"{name}.csv").read_text(encoding="utf-8")
        (options.to / f"{name}.csv").write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        card = json.dumps(card_of(name, task, plan, rows), indent=1, ensure_ascii=False)
        (options.to / f"{name}.json").write_text(card + "\n", encoding="utf-8")
        print(f"{name}: {len(rows)} runs")


def is_whole(plan: Mapping[str, Any], rows: list[dict[str, str]]) -> bool:
    """True when nothing is missing but second seeds far from the best."""
    done = {cell_of(row).key for row in rows}
    return all(cell.key in done for cell in cells(plan, rows))


def card_of(name: str, task: Mapping[str, Any], plan: Mapping[str, Any], rows: list[dict[str, str]]) -> dict[str, Any]:
    """Facts of the task under names of the list instead of paths; `recommend` says of them what it says of the files."""
    spec, recipe = DataSpec(**plan["data_spec"]), Recipe.model_validate(plan["recipe"])
    model = model_facts(plan["model_path"]).model_copy(update={"name": task["model"], "source": "its files"})
    data = data_facts(spec).model_copy(update={"name": task["data"]})
    ask = Ask(method=recipe.method, rank=16, alpha=32.0, num_epochs=recipe.num_epochs)
    by_files = recommend(plan["model_path"], spec, hardware="cpu", ask=ask).log10_center
    if recommend(model, data, hardware="cpu", ask=ask).log10_center != by_files:
        raise SystemExit(f"{name}: `recommend` says otherwise of the facts than of the files")
    return {
        "name": name,
        **task,
        "model_facts": model.model_dump(exclude_none=True),
        "data_facts": data.model_dump(exclude_none=True),
        "recipe": plan["recipe"],
        "lanes": plan["lanes"],
        "dates": sorted({row["date"] for row in rows}),
        "versions": sorted({row["versions"] for row in rows}),
        "licence": "CC0 1.0",
    }


if __name__ == "__main__":
    main()
