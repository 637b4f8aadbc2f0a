"""What the tools answer, field by field, for whoever calls them; further fields of the commands are passed on as they are."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Text = str | None
Words = Annotated[list[str], Field(default_factory=list)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Advice(_Answer):
    """A recommendation."""

    method: str = Field(description="full, lora, qlora, a variant of LoRA, or a prompt method.")
    recipe: JsonValue = Field(None, description="The recipe to start from; null for a method that is not trained here.")
    model: JsonValue = Field(None, description="What is known of the model.")
    data: JsonValue = Field(None, description="What is known of the rows; null: none were named.")
    hardware: JsonValue = Field(None, description="The machine that it is meant for.")
    estimates: JsonValue = Field(
        None,
        description="By field of the recipe: value, low, high, source, why; `coverage` says how often low to high holds.",
    )
    log10_center: float = Field(description="Centre of the learning rate's interval, log10.")
    log10_sd: float = Field(description="Standard deviation of log10 of the best learning rate.")
    neighbours: JsonValue = Field(
        None, description="Published recipes near this one, and their rates moved to this case."
    )
    derivation: JsonValue = Field(
        None, description="The factors that the learning rate is made of, each with its source."
    )
    what_ifs: JsonValue = Field(None, description="What would narrow the interval, or change the answer.")
    assumptions: list[str] = Field(description="What was not known, and what was taken instead.")
    notes: list[str] = Field(description="What to tell the user.")


class DataSeen(_Answer):
    """The rows as training would read them."""

    facts: JsonValue = Field(description="Format, task, number of rows and tokens, lengths.")
    lengths: JsonValue = Field(None, description="Percentiles of the rows' lengths in tokens.")
    longest: int | None = Field(None, description="Tokens of the longest row.")
    max_length: int | None = Field(None, description="Tokens at which rows are cut.")
    num_cut: int = Field(0, description="Rows that are cut there.")
    num_tokens_cut: int = Field(0, description="Tokens that are lost by it.")
    num_left_out: int = Field(0, description="Rows of which nothing would be trained on.")
    num_duplicates: int = Field(0, description="Rows that are there more than once.")
    unused: JsonValue = Field(None, description="Columns that are not used, with their share of the text.")
    labels: JsonValue = Field(None, description="Rows by label; empty for texts to write.")
    notes: list[str] = Field(description="What to tell the user: columns that are not used, rows that are cut.")
    sample: JsonValue = Field(
        None, description="A row as the model sees it: pieces of text, and whether each is trained on."
    )


class MemorySeen(_Answer):
    """A prediction of memory."""

    model: str = Field(description="The model.")
    method: str = Field(description="full, lora or qlora.")
    length: int = Field(description="Tokens of a row that it is predicted for.")
    num_parameters: int | None = Field(None, description="Weights of the model.")
    num_trained: int | None = Field(None, description="Weights that are trained.")
    usable_bytes: int | None = Field(None, description="Memory of the device that training may use.")
    settings: JsonValue = Field(
        description="By setting (checkpointing, chunked loss): largest micro-batch, and the memory of one row by part, in bytes."
    )
    advice: str | None = Field(None, description="Which setting makes room for more rows.")
    notes: list[str] = Field(default_factory=list, description="What to tell the user.")


class Started(_Answer):
    """A study that was started."""

    study: str = Field(description="Folder of the study: the `study` of the other tools.")
    pid: int = Field(description="Number of its process.")
    log: str = Field(description="File of what it prints, agent.log: errors stand there too.")
    next: str = Field(description="The tool to call next.")


class TrialNow(_Answer):
    """A trial under way."""

    trial: int = Field(description="Its number.")
    learning_rate: float = Field(description="Its peak learning rate.")
    effective_batch_size: int = Field(description="Its rows of an optimizer step.")
    fidelity: float = Field(description="Share of a full run that it trains.")
    step: int | None = Field(description="Its last step; null before the first.")
    steps_planned: int | None = Field(description="Steps of the whole trial; null where that is not known.")
    seconds_left: float | None = Field(description="Until its last step; null where that is not known.")
    loss: float | None = Field(description="Training loss of its last step.")


class BestNow(_Answer):
    """The best full run so far."""

    trial: int = Field(description="Its number.")
    learning_rate: float = Field(description="Its peak learning rate.")
    effective_batch_size: int = Field(description="Its rows of an optimizer step.")
    eval_loss: float | None = Field(description="Its validation loss, in nats a token.")
    metrics: JsonValue = Field(None, description="Its further metrics.")


class StudyNow(_Answer):
    """How a study stands."""

    folder: str = Field(description="Folder of the study.")
    working: bool = Field(description="A process works on it: wait_for_study. False: see `state`.")
    state: str = Field(
        description="loading (no step yet), running, paused, stopped (start_study with the same arguments goes on), or ended."
    )
    trials: dict[str, int] = Field(
        description="Number of trials by state; `stopped (resumes)` go on when the study does."
    )
    spent: float = Field(
        description="Cost so far in full runs; a trial under way counts by the steps that it has made."
    )
    budget: float | None = Field(description="Full runs that may be spent; null: not known yet.")
    seconds_left: float | None = Field(
        description="Until the budget is spent, which a search may end before; null: not known yet."
    )
    time_left: str | None = Field(None, description="The same in words.")
    under_way: list[TrialNow] = Field(description="Trials that run, or go on when the study does.")
    best: BestNow | None = Field(description="The best full run so far; null before the first has ended.")
    settled: bool = Field(description="False: no per cent was earned, and the best rate may lie elsewhere.")
    reason: str | None = Field(description="Why no trial of a study that has ended has a result.")
    next_command: str | None = Field(description="The command that goes on; as a tool: start_study with its arguments.")
    command: str | None = Field(description="The command that runs or ran it.")
    paused: bool = Field(description="A user has paused it.")


class Stopping(_Answer):
    """A wish to stop a study."""

    stopping: bool = Field(
        description="True: it writes a checkpoint and ends, wait_for_study says when. False: nothing runs."
    )


class Steered(_Answer):
    """What became of a wish."""

    study: str = Field(description="Folder of the study.")
    command: JsonValue = Field(description="What was asked.")
    id: str = Field(description="Number of the wish.")
    working: bool = Field(description="A process runs the study.")
    done: bool = Field(description="It was done already; False: see `said`.")
    said: str = Field(description="What the study answers, or when it will.")
    start_again: str | None = Field(
        description="Where nothing runs: the command that starts the study; as a tool: start_study with its arguments."
    )


class LogJudged(_Answer):
    """What training logs say."""

    log: str | None = Field(None, description="The file that was read.")
    verdict: str | None = Field(None, description="In one word: healthy, overfitting, diverged, ...")
    findings: JsonValue = Field(
        None, description="What is seen: code, severity, meaning, evidence and advice; the first decides."
    )
    runs: JsonValue = Field(None, description="The runs that the file holds, with their own verdicts.")


class Written(_Answer):
    """Files that were written."""

    files: list[str] = Field(description="Their paths.")
    command: str = Field(description="The command that trains with them.")
    cannot: list[str] = Field(description="What of the recipe the framework cannot express: tell the user.")
