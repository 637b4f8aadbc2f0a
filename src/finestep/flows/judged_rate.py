"""The learning rate of somebody's config against what is recommended for each model and method that the file may mean."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from finestep.facts import ModelFacts
from finestep.flows.remark import Remark, Verdict
from finestep.foreign.config import ForeignConfig
from finestep.rules.recommendation import Recommendation

CLEARLY_OUTSIDE_DEX = 0.3
_ADAM = re.compile(r"adam(?!ax|afactor)", re.IGNORECASE)
_OTHER_OBJECTIVES = {
    "images": "this trains a model of images, and every rate that we know is of a language model",
    "sentence embeddings": "this trains sentence embeddings, which have other best rates than the models that were measured",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A method and a model that the file may mean, and what is recommended for them."""

    method: str
    model: ModelFacts
    answer: Recommendation

    @property
    def words(self) -> str:
        """The method in words."""
        return {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}.get(self.method, self.method)

    def side(self, rate: float) -> float:
        """How far the rate lies above (positive) or below (negative) the interval, in factors of ten; 0 inside."""
        estimate = self.answer.estimates["learning_rate"]
        return max(0.0, math.log10(rate / estimate.high)) + min(0.0, math.log10(rate / estimate.low))


def judged_rate(config: ForeignConfig, cases: list[Case], *, is_named: bool) -> list[Remark]:
    """Remarks on the rate, and on how it is written."""
    rate = config.value("learning_rate")
    out = [_unknown_kind(config, cases) or _rate(config, rate, cases, is_named=is_named)]
    if config.optimization.text_rate and config.optimization.learning_rate is not None:
        text = f"the learning rate has no point, so that PyYAML reads it as text; write {config.optimization.learning_rate:.1e}"
        out.append(Remark(topic="learning_rate.text", verdict="consider", text=text))
    return out


def _unknown_kind(config: ForeignConfig, cases: list[Case]) -> Remark | None:
    """What was never measured is not judged by what was."""
    reason = None
    if not config.is_supervised:
        usual = f"{config.objective} has rates of its own, far below those of supervised fine-tuning, which alone were measured"
        reason = _OTHER_OBJECTIVES.get(config.objective, usual)
    elif config.optimization.optimizer is not None and not _ADAM.search(config.optimization.optimizer):
        reason = f"the rates that we know are of Adam and AdamW; {config.optimization.optimizer} takes others"
    elif not cases:
        reason = f"no rate is known for the method `{config.method}`"
    if reason is None:
        return None
    shown = (
        f"learning rate {config.optimization.learning_rate:.1e}"
        if config.optimization.learning_rate
        else "the learning rate"
    )
    return Remark(topic="learning_rate", verdict="not judged", text=f"{shown} is not judged: {reason}")


def _rate(config: ForeignConfig, rate: float | None, cases: list[Case], *, is_named: bool) -> Remark:
    if rate is None:
        text = f"no learning rate is stated: use {_wanted(cases)}"
        return Remark(topic="learning_rate", verdict="change", text=text)
    unstated = "" if config.optimization.learning_rate else f" (what {config.layout} takes, as none is stated)"
    shown = f"learning rate {rate:.1e}{unstated}"
    if len(cases) == 1:
        return _one_case(shown, rate, cases[0])
    return _several(shown, rate, cases, is_named=is_named)


def _wanted(cases: list[Case]) -> str:
    """What each method wants; over several sizes, from the largest model to the smallest."""
    out = []
    for words in dict.fromkeys(case.words for case in cases):
        own = [case for case in cases if case.words == words]
        if len(own) == 1:
            out.append(f"{_span(own[0])} for {words}")
        else:
            first, last = own[-1].answer.estimates["learning_rate"], own[0].answer.estimates["learning_rate"]
            sizes = f"{_size(own[-1])} to {_size(own[0])}"
            out.append(f"{first.value:.1e} to {last.value:.1e} for {words} of {sizes}, at most {last.high:.1e}")
    return "; ".join(out)


def _one_case(shown: str, rate: float, case: Case) -> Remark:
    side, estimate = case.side(rate), case.answer.estimates["learning_rate"]
    if side == 0:
        text = f"{shown} lies inside the {_kind(case)} {estimate.low:.1e} - {estimate.high:.1e}; we would use {estimate.value:.1e}"
        return Remark(topic="learning_rate", verdict="fine", text=text)
    verdict: Verdict = "change" if side > 0 or -side > CLEARLY_OUTSIDE_DEX else "consider"
    slow = "it will learn too slowly" if verdict == "change" else "it is likely on the slow side"
    risk = "it may diverge or forget; too high is the dearer error" if side > 0 else slow
    text = f"{shown} is {_times(rate, estimate.value)} what we would use for {case.words} ({_span(case)}): {risk}"
    return Remark(topic="learning_rate", verdict=verdict, text=text)


def _several(shown: str, rate: float, cases: list[Case], *, is_named: bool) -> Remark:
    """The file leaves open which method or model: a fault is what is one in all of them."""
    sides = [case.side(rate) for case in cases]
    what = "method" if is_named else "model and method" if len({case.method for case in cases}) > 1 else "model"
    text = f"{shown}: the file does not say which {what} it is for. We would use {_wanted(cases)}"
    if all(side > 0 for side in sides):
        return Remark(
            topic="learning_rate", verdict="change", text=f"{text}: too high for all of them; it may diverge or forget"
        )
    if all(side < 0 for side in sides):
        return Remark(
            topic="learning_rate", verdict="change", text=f"{text}: too low for all of them; it will learn too slowly"
        )
    if all(side == 0 for side in sides):
        return Remark(topic="learning_rate", verdict="fine", text=f"{text}: inside every interval")
    fits = [
        f"{case.words}{'' if is_named else f' of {_size(case)}'}"
        for case, side in zip(cases, sides, strict=True)
        if side == 0
    ]
    end = f"it fits {' and '.join(fits)} alone" if fits else "it fits none of them"
    verdict: Verdict = "consider" if fits else "change"
    return Remark(topic="learning_rate", verdict=verdict, text=f"{text}: {end} (`--method` and `--params` decide)")


def _times(rate: float, value: float) -> str:
    factor = rate / value
    if 0.8 < factor < 1.25:
        return "about"
    return f"{factor:.2g} times" if factor > 1 else f"1/{1 / factor:.2g} of"


def _kind(case: Case) -> str:
    return "80 % interval" if case.answer.estimates["learning_rate"].kind == "interval" else "usual range"


def _span(case: Case) -> str:
    estimate = case.answer.estimates["learning_rate"]
    return f"{estimate.value:.1e}, {_kind(case)} {estimate.low:.1e} - {estimate.high:.1e}"


def _size(case: Case) -> str:
    return f"{(case.model.num_parameters or 0) / 1e9:g}B"
