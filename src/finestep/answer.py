"""Answer: what the search believes now; a frozen value for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from finestep.estimate import Estimate


class TradeOff(BaseModel):
    """The best that one batch size can give, and how fast it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    effective_batch_size: int = Field(description="Rows of an optimizer step.")
    learning_rate: Estimate = Field(description="Best learning rate at this batch size, full length; central 80 %.")
    excess_percent: float | None = Field(
        None, description="Predicted loss above the best batch size, %; stated if the answer is settled."
    )
    tokens_per_second: float | None = Field(None, description="Measured in this study; None = no trial at this batch.")


class Answer(BaseModel):
    """The chosen trial or point, how sure it is, and one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int | None = Field(description="Number of the chosen full-length trial; None = none has finished.")
    as_good: int | None = Field(
        None,
        description="Number of a full-length trial of a smaller rate that is worse by less than the noise; None = there is none.",
    )
    learning_rate: float | None = Field(description="Of the chosen trial, else of the predicted best point.")
    effective_batch_size: int | None = Field(None, description="Of the same.")
    changes: Mapping[str, object] = Field(default_factory=dict, description="Further fields, by dotted name.")
    settled: bool = Field(
        False, description="The best full run stands between worse ones; until then no per cent is stated."
    )
    expected_regret: float | None = Field(
        None,
        description="Expected excess of the choice over the best, % of the loss, in the mean of seeds; if settled.",
    )
    expected_gain: float | None = Field(
        None, description="Expected fall of the loss by one more full run, %; if settled."
    )
    trade_offs: tuple[TradeOff, ...] = Field((), description="One row a batch size, at full length.")
    sentence: str = Field(description="What the search is doing and why.")

    def told(self) -> Answer:
        """The answer with only what was earned: no per cent before it is settled."""
        return self if self.settled else self.model_copy(update={"expected_regret": None, "expected_gain": None})

    def stated(self) -> Answer:
        """What people and programs read: no per cent of a batch size either, before it is settled."""
        if self.settled:
            return self
        rows = tuple(row.model_copy(update={"excess_percent": None}) for row in self.trade_offs)
        return self.told().model_copy(update={"trade_offs": rows})

    @property
    def rate(self) -> Estimate | None:
        """The best learning rate at the chosen batch size."""
        rows = (row.learning_rate for row in self.trade_offs if row.effective_batch_size == self.effective_batch_size)
        return next(rows, None)

    def fastest(self, *, max_excess_percent: float = 0.1) -> TradeOff | None:
        """The fastest batch size whose predicted loss is at most so much above the best (`--prefer speed`)."""
        near = [
            row
            for row in self.trade_offs
            if row.excess_percent is not None and row.excess_percent <= max_excess_percent and row.tokens_per_second
        ]
        return max(near, key=lambda row: row.tokens_per_second or 0.0, default=None)


def answer_sentence(answer: Answer) -> str:
    """The answer in words: a per cent where it was earned, else that it is not settled and between which rates."""
    who = "predicted best, not yet run at full length" if answer.trial is None else f"trial {answer.trial}"
    text = f"{who}: learning rate {answer.learning_rate:.2g}, batch {answer.effective_batch_size}"
    between = f" between {answer.rate.low:.2g} and {answer.rate.high:.2g}" if answer.rate is not None else ""
    if not answer.settled:
        return f"{text}; not settled: the best rate is{between}" if between else f"{text}; not settled"
    if answer.expected_regret is not None:
        text += f"; expected to be within {answer.expected_regret:.2g} % of the best"
    if between:
        text += f"; the best rate is{between}"
    if answer.expected_gain is not None:
        text += f"; one more full run would gain {answer.expected_gain:.2g} %"
    return text
