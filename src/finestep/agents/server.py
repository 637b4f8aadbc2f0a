"""The server of the Model Context Protocol: recommend, look at data, predict memory, run studies, read them, diagnose, export.

It speaks over standard input and output (`finestep mcp`). Every tool is a command of finestep in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent
from pydantic import Field

from finestep import __version__
from finestep.agents import answers as a
from finestep.agents.arguments import (
    Columns,
    Completion,
    Data,
    Framework,
    Gpu,
    LogMethod,
    MaxLength,
    MaybeData,
    Method,
    Model,
    Prompt,
    Study,
)
from finestep.agents.commands import (
    OUTPUT,
    CommandFailed,
    answer_of,
    failure_of,
    has_begun,
    last_words,
    process_of,
    start,
    stop,
    until_open,
    was_cut_off,
    words_of,
)
from finestep.errors import BadInput, FinestepError
from finestep.result import StudyResult
from finestep.studies.progress import left_words
from finestep.studies.status import State, StudyStatus, study_status
from finestep.study_layout import RECIPE, STEPS, trial_folder

INSTRUCTIONS = """finestep finds the learning rate and the batch size of a fine-tune and trains the winner.
Order of work: inspect_data (read its notes to the user: columns that are not used, rows that are cut), recommend,
predict_memory, start_study with a budget of 2 to 4 full runs, wait_for_study until it has ended, study_result.
Say how sure the answer is: an interval is an 80 % interval, and `settled: false` means that no per cent was earned;
`next_command` goes on: start_study with its budget. A full run passes over the rows once unless `epochs` says more: where
recommend says more and there is time, pass its num_epochs, or the winner may be undertrained. A study keeps its data, model,
epochs and settings: other ones need a new folder, and only `budget` may grow.
Never call a trial the best because of a short run; never change a study's folder by hand.
A failing tool answers with kind, message, place and next_step: do the next step."""
LOOK_EVERY_S = 2.0

server = MCPServer("finestep", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")


def _told(values: dict[str, object]) -> CallToolResult:
    """An answer, as text and as values."""
    return CallToolResult(
        content=[TextContent(type="text", text=json.dumps(values, ensure_ascii=False))], structured_content=values
    )


def _failed(error: CommandFailed | FinestepError) -> ToolError:
    """An error as the object that the tools answer with."""
    if isinstance(error, FinestepError):
        told = {"kind": error.kind, "message": str(error), "place": error.place, "next_step": error.next_step}
        error = CommandFailed({**told, "exit_code": error.exit_code})
    return ToolError(json.dumps(error.told, ensure_ascii=False))


async def _answer(name: str, places: list[object], **options: object) -> CallToolResult:
    try:
        return _told(await answer_of(words_of(name, places, options)))
    except CommandFailed as failed:
        raise _failed(failed) from None


@server.tool()
async def recommend(
    model: Model, data: MaybeData = None, method: Method = None, gpu: Gpu = None, columns: Columns = None
) -> Annotated[CallToolResult, a.Advice]:
    """The best-supported recipe before anything runs, with an interval and a source for each number."""
    return await _answer("recommend", [model, data], method=method, gpu=gpu, columns=columns)


@server.tool()
async def inspect_data(
    data: Data,
    model: Model = "shipped",
    columns: Columns = None,
    prompt: Prompt = None,
    completion: Completion = None,
) -> Annotated[CallToolResult, a.DataSeen]:
    """Rows, lengths in tokens, labels, what is not used and what is cut."""
    return await _answer("data", [data], model=model, columns=columns, prompt=prompt, completion=completion)


@server.tool()
async def predict_memory(
    model: Model, gpu: Gpu = None, method: Method = None, max_length: MaxLength = None
) -> Annotated[CallToolResult, a.MemorySeen]:
    """Memory of a training step by part, and the largest micro-batch, without running anything."""
    settings = [f"max_length={max_length}"] if max_length else None
    return await _answer("probe", [model], predict=True, gpu=gpu, method=method, set=settings)


@server.tool()
async def start_study(
    model: Model,
    data: Data,
    out: Annotated[
        str,
        Field(
            description="Folder of the study; one that exists goes on, with the arguments it had: only `budget` may be larger."
        ),
    ],
    budget: Annotated[float, Field(gt=0, description="Most full runs to spend.")] = 3.0,
    method: Method = None,
    epochs: Annotated[
        float | None,
        Field(
            gt=0, description="Passes over the rows in a full run (recommend says how many are good); of a new study."
        ),
    ] = None,
    max_length: MaxLength = None,
    columns: Columns = None,
    prompt: Prompt = None,
    completion: Completion = None,
    settings: Annotated[
        list[str] | None, Field(description="Fields of the recipe as group.field=value, e.g. lora.rank=8.")
    ] = None,
    objective: Annotated[
        str | None,
        Field(
            description="What is best: eval_loss (the usual), accuracy or macro_f1 (labels), exact_match, min:NAME or max:NAME."
        ),
    ] = None,
) -> Annotated[CallToolResult, a.Started]:
    """Start the search in the background; it answers in some seconds, when what was asked is checked, or with its error.

    Killed at any point, the same call goes on where it was.
    """
    folder = Path(out).expanduser()
    options = {"out": folder, "budget": budget, "method": method, "epochs": epochs, "max_length": max_length}
    options |= {"columns": columns, "prompt": prompt, "completion": completion, "set": settings, "objective": objective}
    try:
        pid = await start(words_of("tune", [model, data], options), folder)
    except (CommandFailed, FinestepError) as failed:
        raise _failed(failed) from None
    return _told({"study": str(folder), "pid": pid, "log": str((folder / OUTPUT).absolute()), "next": "wait_for_study"})


@server.tool()
async def wait_for_study(
    study: Study,
    context: Context,
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="Seconds to wait at most.")] = 60.0,
) -> Annotated[CallToolResult, a.StudyNow]:
    """Wait until a study has ended, or `timeout_s` have passed; reports progress. Call it again while `working` is true."""
    folder, until = Path(study).expanduser(), asyncio.get_running_loop().time() + timeout_s
    await asyncio.sleep(min(LOOK_EVERY_S, timeout_s))
    while (now := _status(folder)).working and asyncio.get_running_loop().time() < until:
        await context.report_progress(now.spent, now.budget, message=progress_words(now))
        await asyncio.sleep(LOOK_EVERY_S)
    return _told(_plain(now))


@server.tool()
async def study_status_of(study: Study) -> Annotated[CallToolResult, a.StudyNow]:
    """How a study stands now: what runs, how long it takes, what was spent, what is best so far."""
    return _told(_plain(_status(Path(study).expanduser())))


@server.tool()
async def stop_study(study: Study) -> Annotated[CallToolResult, a.Stopping]:
    """Ask a study to write a checkpoint and end. `start_study` with the same arguments goes on from there."""
    return _told({"stopping": stop(Path(study).expanduser())})


@server.tool()
async def stop_trial(
    study: Study, trial: Annotated[int, Field(ge=0, description="Number of a trial that is under way.")]
) -> Annotated[CallToolResult, a.Steered]:
    """End one running trial; it is measured once more, and teaches the search what it has shown. The search goes on."""
    return await _steered("stop", study, [trial])


@server.tool()
async def add_trial(
    study: Study,
    learning_rate: Annotated[float, Field(gt=0, description="Its peak learning rate.")],
    batch: Annotated[
        int | None, Field(ge=1, description="Its effective batch size; null: that which the study started from.")
    ] = None,
    length: Annotated[float, Field(gt=0, le=1, description="Share of a full run.")] = 1.0,
) -> Annotated[CallToolResult, a.Steered]:
    """Add a trial that the user wants; it runs next, counts towards the budget, and is marked as the user's."""
    return await _steered("add", study, [], lr=learning_rate, batch=batch, length=length)


@server.tool()
async def extend_study(
    study: Study, budget: Annotated[float, Field(gt=0, description="The whole budget from now on, in full runs.")]
) -> Annotated[CallToolResult, a.Steered]:
    """Give a study a larger budget, also while it runs."""
    return await _steered("extend", study, [], budget=budget)


@server.tool()
async def study_result(study: Study) -> Annotated[CallToolResult, StudyResult]:
    """The answer of a study: chosen recipe, intervals, whether it is settled, all trials, and how its model is loaded."""
    folder = Path(study).expanduser()
    _raise_failure(folder)
    return await _answer("report", [folder])


@server.tool()
async def diagnose_log(
    log: Annotated[
        str | None,
        Field(description="A training log of any trainer: file, folder or glob; null: give study and trial."),
    ] = None,
    study: Annotated[str | None, Field(description="Folder of a study, in place of `log`.")] = None,
    trial: Annotated[int | None, Field(ge=0, description="Number of the study's trial.")] = None,
    method: LogMethod = None,
    model: Annotated[
        str | None, Field(description="What was trained, where no file says it: a folder, a name or a size such as 7B.")
    ] = None,
) -> Annotated[CallToolResult, a.LogJudged]:
    """What a training log of any framework says: verdict, findings with evidence, one next step."""
    return await _answer("diagnose", [_log_of(log, study, trial)], method=method, model=model)


@server.tool()
async def export_recipe(
    study: Study,
    framework: Framework,
    output: Annotated[str, Field(description="Folder to write into.")],
    model: Model,
    data: Data,
    force: Annotated[bool, Field(description="Overwrite files that are there.")] = False,
) -> Annotated[CallToolResult, a.Written]:
    """Write a study's recipe as another framework's config."""
    recipe = Path(study).expanduser() / RECIPE
    return await _answer("export", [recipe], to=framework, output=output, model=model, data=data, force=force)


def progress_words(now: StudyStatus) -> str:
    """How far a study is, in one line."""
    running = "; ".join(
        f"trial {one.trial} at step {one.step}" + (f" of {one.steps_planned}" if one.steps_planned else "")
        for one in now.under_way
        if one.step is not None
    )
    best = f"; best so far: loss {now.best.eval_loss:.4g}" if now.best and now.best.eval_loss is not None else ""
    left = f"; {left_words(now.seconds_left)}" if now.seconds_left is not None else ""
    between = "between trials, or at the end: the best model is checked" if now.state == "running" else now.state
    return ("loading" if now.state == "loading" else running or between) + left + best


async def _steered(name: str, study: str, places: list[object], **options: object) -> CallToolResult:
    """A wish to a study; one that is being started is waited for, so that it can answer."""
    folder = Path(study).expanduser()
    try:
        is_open = await until_open(folder)
        told = await answer_of(words_of(name, [study, *places], options))
    except CommandFailed as failed:
        raise _failed(failed) from None
    if not is_open:
        said = "the study is being started: it is done when it has loaded"
        told |= {"working": True, "said": said, "start_again": None}
    return _told(told)


def _log_of(log: str | None, study: str | None, trial: int | None) -> Path | str:
    """What diagnose_log shall read."""
    if log is not None and study is None and trial is None:
        return log
    if log is not None or study is None or trial is None:
        raise _failed(
            BadInput(
                "a log is named by `log`, or by `study` and `trial`", next_step="give `log`, or both of the others"
            )
        )
    folder = trial_folder(Path(study).expanduser(), trial)
    return folder / STEPS if (folder / STEPS).exists() else folder


def _raise_failure(folder: Path) -> None:
    """An agent must not read an older result for the answer of a start that failed; how the study stands is told beside it."""
    if (failure := failure_of(folder)) is None:
        return
    with contextlib.suppress(FinestepError):
        failure["standing"] = _plain(study_status(folder))
    raise _failed(CommandFailed(failure))


def _status(folder: Path) -> StudyStatus:
    """The status of a study; before it has a file, whether its process still loads, or why it has ended."""
    runs = process_of(folder) is not None
    _raise_failure(folder)
    try:
        found = study_status(folder)
    except FinestepError as error:
        if runs:
            return StudyStatus(folder, working=True, trials={}, spent=0.0, budget=None)
        if printed := last_words(folder):
            raise _failed(CommandFailed({"kind": error.kind, "message": str(error), "printed": printed})) from None
        raise _failed(error) from None
    if not found.working and runs:
        state: State = "running" if has_begun(folder) else "loading"  # the lock is not yet taken, or given back already
        return replace(found, working=True, state=state, next_command=None)
    if found.state == "ended" and was_cut_off(folder):
        return replace(found, state="stopped", next_command=found.command)
    return found


def _plain(status: StudyStatus) -> dict[str, object]:
    left = None if status.seconds_left is None else left_words(status.seconds_left)
    return {**json.loads(json.dumps(status.as_values())), "time_left": left}
