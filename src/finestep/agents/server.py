"""The server of the Model Context Protocol: recommend, look at data, predict memory, run studies, read them, diagnose, export.

It speaks over standard input and output (`finestep mcp`). Every tool is a command of finestep in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from finestep import __version__
from finestep.agents.commands import CommandFailed, answer_of, last_words, process_of, start, stop, words_of
from finestep.errors import FinestepError
from finestep.studies.status import StudyStatus, study_status
from finestep.study_layout import RECIPE

INSTRUCTIONS = """finestep finds the learning rate and the batch size of a fine-tune and trains the winner.
Order of work: inspect_data (read its notes to the user: columns that are not used, rows that are cut), recommend,
predict_memory, start_study with a budget of 2 to 4 full runs, wait_for_study until it has ended, study_result.
Say how sure the answer is: an interval is an 80 % interval, and `settled: false` means that no per cent was earned;
`next_command` goes on: start_study with its budget. A full run passes over the rows once unless `epochs` says more: where
recommend says more and there is time, pass its num_epochs, or the winner may be undertrained.
Never call a trial the best because of a short run; never change a study's folder by hand.
A failing tool answers with kind, message, place and next_step: do the next step."""
LOOK_EVERY_S = 2.0
Model = Annotated[str, Field(description="Folder or Hub name; `shipped` for the small model of the package.")]
Data = Annotated[str, Field(description="File, folder or Hub name of the rows.")]
Columns = Annotated[str | None, Field(description="Which column is which, e.g. prompt=question,completion=answer.")]
Method = Literal["full", "lora", "qlora"] | None
Study = Annotated[str, Field(description="Folder of the study.")]

server = MCPServer("finestep", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")


async def _answer(name: str, places: list[object], **options: object) -> dict[str, object]:
    try:
        return await answer_of(words_of(name, places, options))
    except CommandFailed as failed:
        raise ToolError(str(failed)) from None


@server.tool()
async def recommend(
    model: Model, data: Data | None = None, method: Method = None, gpu: str | None = None, columns: Columns = None
) -> dict[str, object]:
    """The best-supported recipe before anything runs, with an interval and a source for each number. `gpu`: e.g. 24GB, h100, 8xh100."""
    return await _answer("recommend", [model, data], method=method, gpu=gpu, columns=columns)


@server.tool()
async def inspect_data(
    data: Data,
    model: Model = "shipped",
    columns: Columns = None,
    prompt: str | None = None,
    completion: str | None = None,
) -> dict[str, object]:
    """Rows, lengths in tokens, labels, what is not used and what is cut. `prompt`, `completion`: format strings over columns."""
    return await _answer("data", [data], model=model, columns=columns, prompt=prompt, completion=completion)


@server.tool()
async def predict_memory(
    model: Model, gpu: str | None = None, method: Method = None, max_length: int | None = None
) -> dict[str, object]:
    """Memory of a training step by part, and the largest micro-batch, without running anything."""
    settings = [f"max_length={max_length}"] if max_length else None
    return await _answer("probe", [model], predict=True, gpu=gpu, method=method, set=settings)


@server.tool()
async def start_study(
    model: Model,
    data: Data,
    out: Annotated[str, Field(description="Folder of the study; an existing one goes on.")],
    budget: Annotated[float, Field(gt=0, description="Most full runs to spend.")] = 3.0,
    method: Method = None,
    epochs: Annotated[
        float | None, Field(gt=0, description="Passes over the rows in a full run; recommend says how many are good.")
    ] = None,
    columns: Columns = None,
    prompt: str | None = None,
    completion: str | None = None,
    settings: Annotated[list[str] | None, Field(description="group.field=value, e.g. lora.rank=8")] = None,
    objective: str | None = None,
) -> dict[str, object]:
    """Start the search in the background and return at once. Killed at any point, the same call goes on where it was."""
    folder = Path(out).expanduser()
    words = words_of(
        "tune",
        [model, data],
        {
            "out": folder,
            "budget": budget,
            "method": method,
            "epochs": epochs,
            "columns": columns,
            "prompt": prompt,
            "completion": completion,
            "set": settings,
            "objective": objective,
        },
    )
    try:
        pid = start(words, folder)
    except CommandFailed as failed:
        raise ToolError(str(failed)) from None
    return {"study": str(folder), "pid": pid, "next": "wait_for_study"}


@server.tool()
async def wait_for_study(
    study: Study, context: Context, timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
) -> dict[str, object]:
    """Wait until a study has ended, or `timeout_s` have passed; reports progress. Call it again while `working` is true."""
    folder, until = Path(study).expanduser(), asyncio.get_running_loop().time() + timeout_s
    await asyncio.sleep(min(LOOK_EVERY_S, timeout_s))
    while (now := _status(folder)).working and asyncio.get_running_loop().time() < until:
        running = "; ".join(f"trial {one.trial} at step {one.step}" for one in now.under_way)
        best = f"; best so far: loss {now.best.eval_loss:.4g}" if now.best and now.best.eval_loss is not None else ""
        await context.report_progress(now.spent, now.budget, message=(running or "loading") + best)
        await asyncio.sleep(LOOK_EVERY_S)
    return _plain(now)


@server.tool()
async def study_status_of(study: Study) -> dict[str, object]:
    """How a study stands now: what runs, what was spent, what is best so far."""
    return _plain(_status(Path(study).expanduser()))


@server.tool()
async def stop_study(study: Study) -> dict[str, object]:
    """Ask a study to write a checkpoint and end. `start_study` with the same arguments goes on from there."""
    try:
        return {"stopping": stop(Path(study).expanduser())}
    except CommandFailed as failed:
        raise ToolError(str(failed)) from None


@server.tool()
async def stop_trial(study: Study, trial: Annotated[int, Field(ge=0)]) -> dict[str, object]:
    """End one running trial; it is measured once more, and teaches the search what it has shown. The search goes on."""
    return await _answer("stop", [study, trial])


@server.tool()
async def add_trial(
    study: Study,
    learning_rate: Annotated[float, Field(gt=0)],
    batch: int | None = None,
    length: Annotated[float, Field(gt=0, le=1, description="Share of a full run.")] = 1.0,
) -> dict[str, object]:
    """Add a trial that the user wants; it runs next, counts towards the budget, and is marked as the user's."""
    return await _answer("add", [study], lr=learning_rate, batch=batch, length=length)


@server.tool()
async def extend_study(
    study: Study, budget: Annotated[float, Field(gt=0, description="The whole budget from now on, in full runs.")]
) -> dict[str, object]:
    """Give a study a larger budget, also while it runs."""
    return await _answer("extend", [study], budget=budget)


@server.tool()
async def study_result(study: Study) -> dict[str, object]:
    """The answer of a study: chosen recipe, intervals, whether it is settled, all trials, and how its model is loaded."""
    return await _answer("report", [study])


@server.tool()
async def diagnose_log(
    log: Annotated[str, Field(description="A training log: file, folder or glob.")],
    method: str | None = None,
    model: str | None = None,
) -> dict[str, object]:
    """What a training log of any framework says: verdict, findings with evidence, one next step."""
    return await _answer("diagnose", [log], method=method, model=model)


@server.tool()
async def export_recipe(
    study: Study,
    framework: Annotated[
        str, Field(description="hf, trl, llamafactory, axolotl, ms-swift, unsloth, litgpt, torchtune, deepspeed")
    ],
    output: Annotated[str, Field(description="Folder to write into.")],
    model: Model,
    data: Data,
) -> dict[str, object]:
    """Write a study's recipe as another framework's config."""
    recipe = Path(study).expanduser() / RECIPE
    return await _answer("export", [recipe], to=framework, output=output, model=model, data=data)


def _status(folder: Path) -> StudyStatus:
    """The status of a study; before it has a file, whether its process still loads, or what it has printed."""
    runs = process_of(folder) is not None
    try:
        found = study_status(folder)
    except FinestepError as error:
        if runs:
            return StudyStatus(folder, working=True, trials={}, spent=0.0, budget=None)
        raise ToolError(json.dumps({"message": str(error), "printed": last_words(folder)})) from None
    return replace(found, working=found.working or runs)


def _plain(status: StudyStatus) -> dict[str, object]:
    return dict(json.loads(json.dumps(status.as_values())))
