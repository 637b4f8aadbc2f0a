"""Every packaged row: types, ranges and sources; and the derived tables are up to date."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest

from finestep.flat import flat_values
from finestep.knowledge.evidence import all_evidence
from finestep.knowledge.models import known_model, known_names, lineage
from finestep.knowledge.optima import measured_optima
from finestep.knowledge.packaged import FOLDER, practice, rows
from finestep.knowledge.recipes import public_recipes
from finestep.knowledge.sweep import sweep_cells

ROOT = Path(__file__).parents[2]
METHODS = {"full", "lora", "qlora", "dora", "prefix", "p-tuning", "freeze"}
NUMBERS = {
    "params": (1e6, 3e12),
    "learning_rate": (1e-8, 1.0),
    "effective_batch_size": (1, 100_000),
    "epochs": (0, 200),
    "lora_rank": (1, 4096),
    "lora_alpha": (0.5, 4096),
    "warmup_ratio": (0, 1),
    "weight_decay": (0, 1),
    "llrd": (0.3, 1),
}


def test_every_public_recipe_is_sound():
    found = public_recipes()
    assert len(found) == 1042
    assert len({row.id for row in found}) == len(found)
    for row in found:
        assert row.method in METHODS, row.id
        assert re.match(r"https?://|arXiv:", row.origin.source_url), row.id
        assert row.architecture in {"causal-lm", "encoder", "encoder-decoder"}, row.id
        assert row.origin.source_kind in {"framework-example", "official-repo", "paper", "model-card", "community"}, (
            row.id
        )
        for name, (low, high) in NUMBERS.items():
            value = flat_values(row)[name]
            assert value is None or low <= value <= high, (row.id, name, value)


def test_every_source_says_where_and_how_sure():
    for row in all_evidence().values():
        assert row.title, row.id
        assert row.where, row.id
        assert row.regime, row.id
        assert row.confidence in {"read", "computed", "judgement"}, f"{row.id}: read its source, or drop it"
        assert row.confidence != "read" or re.search(
            r"arXiv:|https?://|doi:|README|note|report|recipes.jsonl|config|project|article", row.where
        ), row.id


def test_every_sweep_cell_belongs_to_a_known_model():
    cells = sweep_cells()
    assert len(cells) == 126
    for cell in cells:
        assert cell.lineage, cell.model
        assert 1 <= cell.rank <= 128
        rates = [rate for rate, _ in cell.points]
        assert rates == sorted(rates)
        assert all(1e-5 < rate < 1e-2 for rate in rates)
        assert all(loss is None or 0.3 < loss < 3 for _, loss in cell.points), cell.model


def test_every_measured_optimum_is_sound():
    found = measured_optima()
    assert len({row.id for row in found}) == len(found) >= 90
    for row in found:
        assert row.origin.source in all_evidence(), row.id
        assert row.origin.grade in {"A", "B", "C"}, row.id
        assert 1e-7 < row.learning_rate < 0.1, row.id
        assert known_model(row.model) or row.params, row.id
        if row.run.num_rows and row.run.num_epochs:
            assert row.run.steps == pytest.approx(
                row.run.num_rows * row.run.num_epochs / row.run.batch, rel=0.15, abs=2
            ), row.id
        assert (row.method == "lora") == (row.rank is not None or row.origin.left_out != ""), row.id


def test_figures_that_evidence_cites_stand_in_the_packaged_rows():
    """Rates that a row of evidence names are those of the optima that name it as their source."""
    by_source = {}
    for row in measured_optima():
        by_source.setdefault(row.origin.source, []).append(row.learning_rate)
    cited = {name: [float(x) for x in re.findall(r"\d\.?\d*e-\d", all_evidence()[name].table)] for name in by_source}
    for name, rates in cited.items():
        here = [rate for rate in rates if any(math.isclose(rate, own, rel_tol=0.5) for own in by_source[name])]
        assert not rates or here, name


def test_files_that_evidence_names_exist():
    known = {row.id for row in public_recipes()}
    for row in all_evidence().values():
        for place in re.findall(
            r"(?:finestep/knowledge/data|docs|benchmarks|scripts)/[\w./-]+\w", f"{row.where}; {row.table}"
        ):
            where = ROOT / ("src" if place.startswith("finestep") else "") / place
            assert where.exists(), (row.id, place)
        for name in re.findall(r"(\w+\.jsonl?)\b", f"{row.where}; {row.table}"):
            assert name == "config.json" or (FOLDER / name).exists(), (row.id, name)
        for recipe in re.findall(r"recipes\.jsonl:([\w.-]+)", row.where):
            assert recipe in known, (row.id, recipe)


@pytest.mark.parametrize("name", known_names())
def test_known_models_have_a_shape(name):
    facts = known_model(name)
    assert facts.shape.num_layers > 0
    assert facts.shape.hidden_size % 2 == 0
    assert lineage(facts), name
    assert facts.num_active_parameters is None or facts.num_active_parameters < facts.num_parameters


VISION_OR_EMBEDDING = {f"google/gemma-3-{size}-{kind}" for size in ("4b", "12b", "27b") for kind in ("pt", "it")}
VISION_OR_EMBEDDING |= {"google/electra-small-discriminator"}
UNUSUAL = {"qwen3_5", "deberta", "deberta-v2", "albert", "chatglm", "falcon"}
GATED = {"llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "olmo2", "phi3", "modernbert"}


@pytest.mark.parametrize("row", rows("models.jsonl"), ids=lambda row: row["name"])
def test_parameters_follow_from_the_shape(row):
    if "num_active_parameters" in row or row["family"] in UNUSUAL or row["name"] in VISION_OR_EMBEDDING:
        pytest.skip("not a plain dense transformer")
    h, i, heads = row["hidden_size"], row["intermediate_size"], row["num_attention_heads"]
    width = 256 if row["family"].startswith("gemma") else 128 if row["family"] == "qwen3" else h // heads
    attention = 2 * h * heads * width + 2 * h * row["num_key_value_heads"] * width
    layer = attention + (3 if row["family"] in GATED else 2) * h * i
    total = row["num_layers"] * layer + row["vocabulary_size"] * h * (1 if row["tied_embeddings"] else 2)
    assert total == pytest.approx(row["num_parameters"], rel=0.02)


def test_derived_tables_are_up_to_date():
    spec = importlib.util.spec_from_file_location("derive", ROOT / "scripts/build_knowledge/derive.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, values in module.derived().items():
        assert json.loads((FOLDER / name).read_text(encoding="utf-8")) == json.loads(json.dumps(values)), (
            f"run scripts/build_knowledge/derive.py ({name})"
        )


def test_the_data_stay_small():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1.5e6


def test_tables_hold_no_impossible_number():
    assert all(math.isfinite(value) for row in practice().values() for value in row.values())
