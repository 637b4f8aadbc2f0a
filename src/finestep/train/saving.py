"""Writing a tuned model so that plain transformers and PEFT load exactly what was measured.

PEFT's file of an adapter says neither how many labels a classifier has nor what they are called, and its loader builds the
base with two. So beside a classifier's adapter stand the base's config with the labels and its weights, as hard links where
the disk allows: `AutoModelForSequenceClassification`, `pipeline("text-classification")` and
`AutoPeftModelForSequenceClassification` then load the folder as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, cast

from finestep.disk import make_folder
from finestep.study import ModelSpec
from finestep.survey.adapter_files import BASE, absolute_name, link_or_copy, point_at_own_base, write_base_name
from finestep.survey.weights import ADAPTER_CONFIG, INDEX, tensor_headers, weight_files

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel


def save_model(
    model: PreTrainedModel | PeftModel,
    folder: Path,
    *,
    base: ModelSpec,
    new_names: Set[str],
    is_classifier: bool,
    whole: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the plain model: a whole model as transformers does, an adapter as PEFT does.

    Args:
        new_names: parameters of the base that are new; the checkpoint may hold others of the same names (another head).
        whole: all weights, where the model's own are parts.
    """
    told = {} if whole is None else {"state_dict": dict(whole)}
    model.save_pretrained(str(folder), safe_serialization=True, **told)  # type: ignore[arg-type]
    if (folder / ADAPTER_CONFIG).is_file():
        write_base_name(folder, absolute_name(base.path), revision=base.revision)
        if is_classifier:
            own = cast("PreTrainedModel", cast("PeftModel", model).get_base_model())
            _embed_base(own, folder, base, new_names)


def _embed_base(model: PreTrainedModel, folder: Path, base: ModelSpec, new_names: Set[str]) -> None:
    """The base's config with the labels, and its weights, in the folder itself and in `base/`."""
    source = _folder_of(base)
    if source is None:
        return
    files = weight_files(source) or sorted(source.glob("pytorch_model*.bin"))
    files += [file for file in (source / INDEX, source / "pytorch_model.bin.index.json") if file.is_file()]
    for place in (folder, folder / BASE):
        make_folder(place)
        model.config.save_pretrained(str(place))
        for file in files:
            if not _write_without(file, place / file.name, new_names):
                link_or_copy(file, place / file.name)
    point_at_own_base(folder)


def _folder_of(base: ModelSpec) -> Path | None:
    """The folder with the base's files: as given, or of the Hub's cache."""
    place = Path(base.path).expanduser()
    if place.is_dir():
        return place
    from transformers.utils.hub import cached_file

    found = cached_file(base.path, "config.json", revision=base.revision, local_files_only=True)
    return Path(found).parent if found else None


def _write_without(source: Path, target: Path, names: Set[str]) -> bool:
    """Write the weights without a head of other labels, which would not load with this config; False when there is none."""
    from safetensors.torch import load_file, save_file

    if source.suffix != ".safetensors" or not names & tensor_headers(source).keys():
        return False
    kept = {name: value for name, value in load_file(source).items() if name not in names}
    save_file(kept, target, metadata={"format": "pt"})
    return True
