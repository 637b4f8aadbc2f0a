"""The door of the probes: `python -m finestep.probes request.json`; it answers in JSON lines as the worker does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from finestep.errors import BadInput, FinestepError
from finestep.executors.spoken import Line, be_quiet
from finestep.probe import PredictRequest, ProbeRequest
from finestep.protocol import EventKind
from finestep.survey.installed import PROBING, check_installed

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Say = Callable[[EventKind, dict[str, object]], None]


def main(path: str) -> int:
    """Answer one request: notes on the way, then `finished` or `error`."""
    be_quiet()
    say = Line(unheard=lambda: None).send
    try:
        request = TypeAdapter(ProbeRequest).validate_json(Path(path).read_text(encoding="utf-8"))
        say("finished", _answer(request, say))
    except ValidationError as error:
        say("error", {"error": "BadInput", "text": f"the probe request is not valid: {error.errors()[0]['msg']}"})
        return 2
    except FinestepError as error:
        say("error", {"error": type(error).__name__, "text": str(error)})
        return error.exit_code
    return 0


def _answer(request: ProbeRequest, say: Say) -> dict[str, object]:
    check_installed(PROBING, needed_for="probing")
    if isinstance(request, PredictRequest):
        return _predict(request)
    from finestep.probes.measure import measure

    return measure(request, note=lambda text: say("note", {"text": text})).model_dump()


def _predict(request: PredictRequest) -> dict[str, object]:
    import gc
    import warnings

    from finestep.probes.predict import predict

    gc.disable()  # fake tensors are many and die by count; looking for cycles takes a fifth of the time
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        answer = predict(
            _config(request.config),
            request.case,
            length=request.length,
            levers=request.levers,
            loss_tokens=request.loss_tokens,
        )
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            "the memory of this architecture cannot be predicted from its shapes",
            value=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error) else ''}",
            place=str(request.config.get("model_type")),
            next_step="`finestep recommend` estimates it from a formula; `finestep probe MODEL DATA` measures it",
        ) from error
    return answer.model_dump()


def _config(values: dict[str, object]) -> PretrainedConfig:
    """The config as transformers reads it from a file, which knows how it writes infinity and tuples."""
    import tempfile
    from pathlib import Path

    from transformers import AutoConfig

    rest = {key: value for key, value in values.items() if key not in ("quantization_config", "auto_map")}
    with tempfile.TemporaryDirectory(prefix="finestep-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(rest), encoding="utf-8")
        found: PretrainedConfig = AutoConfig.from_pretrained(folder)
        return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
