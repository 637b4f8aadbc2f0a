"""The law of the best learning rate: its coefficients, how well they are known, and how far one more data set may lie from it.

log10 rate = sum of coefficient x feature (rate_setting.py) + what the family and the variant add. Coefficients and covariance
were fitted to measured optima of many sources (rate_fit.py). The interval is that of *one more data set*: the doubt about the
coefficients, and the spread between sources, which is the largest part.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from typing import TypedDict

from finestep.knowledge.packaged import FOLDER
from finestep.rules.rate_setting import CALM_VARIANTS, RateSetting, features, slopes
from finestep.rules.terms import LogNormal, Term

Z80 = 1.2815515655446004


@dataclass(frozen=True)
class RateLaw:
    """`mean` and `covariance` of the coefficients, in the order of `names`; `spreads`: standard deviations between cases, dex."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    spreads: dict[str, float]

    def weights(self, setting: RateSetting) -> dict[str, float]:
        """Every coefficient that counts here, by name; families and variants that were never measured are left out."""
        wanted = features(setting)
        if setting.kind != "encoder" and setting.family:
            wanted[f"family {setting.family}"] = 1.0
        if setting.variant != "lora":
            wanted[f"variant {setting.variant}"] = 1.0
        return {name: value for name, value in wanted.items() if name in self.names}

    def coefficient_sd(self, weights: dict[str, float]) -> float:
        """Doubt of a weighted sum of coefficients."""
        at = {self.names.index(name): value for name, value in weights.items()}
        variance = sum(a * b * self.covariance[max(i, j)][min(i, j)] for i, a in at.items() for j, b in at.items())
        return math.sqrt(max(variance, 0.0))

    def new_case_sd(self, setting: RateSetting) -> float:
        """How far one more data set, model and family may lie from the law, were its coefficients known."""
        s, (steps, batch) = self.spreads, slopes(setting)
        variance = s[f"source {setting.kind}"] ** 2 + s["set"] ** 2 + s["residual"] ** 2 + s["model"] ** 2
        variance += s["slope"] ** 2 * (steps**2 + batch**2)
        if setting.kind != "encoder" and f"family {setting.family}" not in self.names:
            variance += s["family"] ** 2
        if setting.variant != "lora":
            calm = setting.variant in CALM_VARIANTS
            variance += s["calm variant" if calm else "variant"] ** 2
            variance += (
                0.0 if f"variant {setting.variant}" in self.names else s["new calm" if calm else "new variant"] ** 2
            )
        return math.sqrt(variance)

    def predict(self, setting: RateSetting) -> LogNormal:
        """log10 of the best rate of one more data set: mean and standard deviation."""
        weights = self.weights(setting)
        mean = sum(self.mean[self.names.index(name)] * value for name, value in weights.items())
        return LogNormal(mean, math.hypot(self.coefficient_sd(weights), self.new_case_sd(setting)))

    def terms(self, setting: RateSetting) -> list[Term]:
        """The prediction as a derivation. Doubts of coefficients are correlated, so that they do not add up; the last term's does."""
        weights = self.weights(setting)
        own = [name for name in weights if "variant" in name]
        out = [self._term(name, weights, setting) for name in weights if weights[name] and name not in own]
        if own:
            out.append(self._variant_term({name: weights[name] for name in own}, setting.variant))
        words = "how far measured best rates of other data sets and models lie from the law"
        return [*out, Term("your data", 0.0, self.new_case_sd(setting), "rate-law", words)]

    def _term(self, name: str, weights: dict[str, float], setting: RateSetting) -> Term:
        dex = self.mean[self.names.index(name)] * weights[name]
        sd = self.coefficient_sd({name: weights[name]})
        return Term(name, dex, sd, "rate-law", term_words(name, self.mean[self.names.index(name)], setting))

    def _variant_term(self, weights: dict[str, float], variant: str) -> Term:
        """What bold variants share and the variant's own part as one term."""
        dex = sum(self.mean[self.names.index(name)] * value for name, value in weights.items())
        words = f"{variant} against plain LoRA: x{10**dex:.2g}"
        return Term(f"variant {variant}", dex, self.coefficient_sd(weights), "rate-law", words)


def term_words(name: str, value: float, setting: RateSetting) -> str:
    """A coefficient in words."""
    if name.startswith("family "):
        return f"other {name.removeprefix('family ')} models were measured"
    measured = {
        "steps": f"steps^{value:.2f}: {setting.steps:.0f} against 500",
        "batch": f"batch^{value:.2f}: {setting.batch:g} against 32",
        "rank": f"rank^{value:.2f}: {setting.rank} against 32",
        "alpha": f"alpha^{value:.2f}: {setting.alpha:g} against 32",
        "labels": f"{setting.num_labels} labels against 2",
    }
    if name == "constant rate":
        return f"a rate that never decays against the peak of one that does: x{10**value:.2g}"
    if (last := name.split()[-1]) in measured:
        return measured[last]
    return f"size^{value:.2f}: {setting.size:.3g}B dense-equivalent" if "size" in name else "the reference setting"


@cache
def packaged_law() -> RateLaw:
    """The law as fitted on all evidence (scripts/build_knowledge/derive.py)."""
    values: LawTable = json.loads((FOLDER / "rate_law.json").read_text(encoding="utf-8"))
    return law_from_table(values)


class LawTable(TypedDict):
    """The law as plain JSON values; of the covariance its lower triangle."""

    mean: dict[str, float]
    spreads: dict[str, float]
    covariance: list[list[float]]


def law_from_table(values: LawTable) -> RateLaw:
    """Read what `law_to_table` wrote."""
    rows = tuple(tuple(row) for row in values["covariance"])
    return RateLaw(tuple(values["mean"]), tuple(values["mean"].values()), rows, dict(values["spreads"]))


def law_to_table(law: RateLaw) -> LawTable:
    """Write what `law_from_table` reads."""
    return {
        "mean": {name: round(value, 4) for name, value in zip(law.names, law.mean, strict=True)},
        "spreads": {name: round(value, 4) for name, value in law.spreads.items()},
        "covariance": [[round(x, 6) for x in row[: index + 1]] for index, row in enumerate(law.covariance)],
    }
