"""`python -m benchmarks.scoreboard [--half design] [--json OUT] [--write PAGE]`: `tune` against what a user would do instead.

Every rival is told the same: what `recommend` says of the task. It plays each measured task once a seed; the recipe that it chose
is judged on the other seeds, against the best recipe of the task in the mean of its seeds. Costs are in full runs, which are tokens:
all batch sizes see the same. The unit is the task: intervals are of a paired bootstrap over tasks.

The `untouched` half is there to be played once, when the search is ready. What of it was measured by 30 November 2026 has been.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.pages import write_into
from benchmarks.scoreboard.picture import draw
from benchmarks.scoreboard.rivals import playable
from benchmarks.scoreboard.scores import Reach, Score, play, reach
from benchmarks.scoreboard.tables import lines, task_words
from benchmarks.search.recorded import FOLDER, load_recorded
from finestep.errors import BadInput, FinestepError

Played = tuple[list[Score], list[Reach]]
MARKS = {"design": "scoreboard", "untouched": "scoreboard.untouched"}
"""Each half has its place in the page."""


def main() -> int:
    """Play (or read what was played), print the tables, and write the scores, the page and its picture."""
    options = _arguments()
    try:
        scores, reaches = read(options.read) if options.read else play_all(options)
        every = json.loads((options.tasks / "tasks.json").read_text(encoding="utf-8")).values()
        listed = sum(task["half"] in MARKS for task in every)
        left_out = playable()[1]
        text = "\n".join(lines(scores, reaches, half=options.half, num_listed=listed, left_out=left_out))
        print(text)
        if options.json:
            write_scores(options.json, (scores, reaches))
        if options.write:
            write_into(options.write, text, name=MARKS[options.half])
        if options.picture:
            options.picture.write_text(picture_of(scores, half=options.half), encoding="utf-8")
    except FinestepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scoreboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", type=Path, default=FOLDER, help="folder of recorded tasks")
    parser.add_argument("--half", choices=("design", "untouched"), default="design")
    parser.add_argument("--read", type=Path, help="scores of an earlier run (--json), in place of playing")
    parser.add_argument("--json", type=Path, help="write every score here")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables into this page, between its two marks"
    )
    parser.add_argument("--picture", type=Path, metavar="SVG", help="draw mean regret over cost (tasks judged by loss)")
    return parser.parse_args()


def play_all(options: argparse.Namespace) -> Played:
    """Every rival that can be played, on every task of the half; what goes on is told on the error stream."""
    rivals, _ = playable()
    scores: list[Score] = []
    reaches: list[Reach] = []
    tasks = load_recorded(options.tasks, half=options.half)
    for number, task in enumerate(tasks, 1):
        print(f"{task.name} ({number} of {len(tasks)})", file=sys.stderr, flush=True)
        scores += play(task, rivals)
        reaches += reach(task)
    return scores, reaches


def picture_of(scores: Sequence[Score], *, half: str) -> str:
    """The picture of the tasks that are judged by loss."""
    here = [score for score in scores if not score.by_accuracy]
    if not here:
        raise BadInput("a picture needs a task that is judged by loss", place="--picture")
    count = len({score.task for score in here})
    return draw(here, title=f"Regret over cost: {task_words(count)} of the {half} half, judged by loss")


def write_scores(path: Path, played: Played) -> None:
    """Both lists as one JSON object, a row a line; a cost that was never reached is null."""
    scores, reaches = ([_finite(asdict(one)) for one in rows] for rows in played)
    parts = {"scores": scores, "reaches": reaches}
    body = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]" for name, rows in parts.items()
    )
    path.write_text("{\n" + body + "\n}\n", encoding="utf-8")


def _finite(row: dict[str, object]) -> dict[str, object]:
    return {name: None if value == float("inf") else value for name, value in row.items()}


def read(path: Path) -> Played:
    """What `write_scores` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    reaches = [
        {name: float("inf") if value is None else value for name, value in row.items()} for row in found["reaches"]
    ]
    return [Score(**row) for row in found["scores"]], [Reach(**row) for row in reaches]


if __name__ == "__main__":
    raise SystemExit(main())
