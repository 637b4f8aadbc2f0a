"""Model, data and hardware facts from real files and a real (local) server; no network, no torch."""

from __future__ import annotations

import json
import os
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from finestep.errors import BadInput
from finestep.study import DataSpec
from finestep.survey.data_sample import data_facts, estimated_tokens
from finestep.survey.hardware import CARDS_GIB, hardware_facts
from finestep.survey.model import facts_from_config, facts_from_size, model_facts, stand_in_config
from finestep.survey.model_name import facts_from_name, with_usual_shape

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
GIB = 2**30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "BF16", "shape": [100, 64], "data_offsets": [0, 12800]},
            "b": {"dtype": "BF16", "shape": [64], "data_offsets": [12800, 12928]},
        }
    ).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(12928))
    return tmp_path


def test_a_folder_gives_its_shape_and_counts_its_headers(folder):
    facts = model_facts(str(folder))
    assert facts.num_parameters == 100 * 64 + 64
    assert (facts.shape.num_layers, facts.shape.hidden_size, facts.shape.context_length) == (2, 64, 512)
    assert facts.weights_dtype == "bfloat16"
    assert facts.shape.tied_embeddings is False
    assert facts.source == "config.json"


def test_without_weights_the_shape_is_counted(folder):
    (folder / "model.safetensors").unlink()
    attention, feed = 2 * 64 * 64 + 2 * 64 * 32, 3 * 64 * 128
    assert model_facts(str(folder)).num_parameters == 2 * (attention + feed) + 2 * 100 * 64


def test_a_multimodal_config_is_read_inside():
    facts = facts_from_config({"model_type": "gemma3", "text_config": CONFIG}, name="x", source="t")
    assert facts.shape.num_layers == 2


def test_a_mixture_counts_its_active_parameters():
    config = {
        **CONFIG,
        "model_type": "qwen3_moe",
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    }
    facts = facts_from_config(config, name="x", source="t")
    assert facts.num_parameters - facts.num_active_parameters == 3 * 64 * 32 * 6 * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[1]", "must hold an object"), ("{}", "no model type"), ("\x00", "not valid JSON")],
)
def test_a_broken_config_says_so(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        model_facts(str(tmp_path))


def test_a_folder_without_config_says_so(tmp_path):
    with pytest.raises(BadInput, match=r"no config\.json"):
        model_facts(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", 2**60), struct.pack("<Q", 4) + b"nope"])
def test_broken_safetensors_say_so(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match="not a valid safetensors file"):
        model_facts(str(folder))


def test_known_names_with_and_without_owner():
    assert model_facts("meta-llama/Llama-3.1-8B", offline=True).shape.num_layers == 32
    assert model_facts("llama-3.1-8b", offline=True).shape.num_layers == 32


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(BadInput, match=r"did you mean `meta-llama/Llama-3.1-8B`"):
        model_facts("Lama-3.1-8B", offline=True)


@pytest.mark.parametrize(("text", "count"), [("7B", 7e9), ("350m", 350e6), ("1.5B", 1.5e9), ("7e9", 7e9)])
def test_a_size_in_words(text, count):
    assert facts_from_size(text).num_parameters == count


@pytest.mark.parametrize("text", ["", "seven", "7Q", "-1B", "1.2.3B", "0", "1e30"])
def test_a_wrong_size_is_refused(text):
    with pytest.raises(BadInput, match="--params"):
        facts_from_size(text)


class Hub(BaseHTTPRequestHandler):
    """A small stand-in for the Hub: a real server on this machine."""

    def do_GET(self):
        pages = {
            "/someone/tiny/resolve/main/config.json": CONFIG,
            "/api/models/someone/tiny": {"safetensors": {"total": 123456}},
        }
        page = pages.get(self.path)
        self.send_response(200 if page else 404)
        self.end_headers()
        self.wfile.write(json.dumps(page or {}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_for_unknown_names(hub):
    facts = model_facts("someone/tiny")
    assert (facts.num_parameters, facts.shape.num_layers, facts.source) == (123456, 2, "Hub")
    with pytest.raises(BadInput, match="no such public model"):
        model_facts("someone/else")


def test_the_hub_cache_is_used_first(hub, tmp_path):
    snapshot = tmp_path / "hub/models--someone--cached/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    assert model_facts("someone/cached").source == "Hub cache"


def test_a_hub_that_is_away_is_an_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(BadInput, match="could not be asked"):
        model_facts("someone/tiny")


@pytest.mark.parametrize(
    ("text", "gib", "count"),
    [
        ("24GB", 24, 1),
        ("h100", 80, 1),
        ("H100", 80, 1),
        ("4xA100", 80, 4),
        ("RTX 4090", 24, 1),
        ("4090", 24, 1),
        ("48", 48, 1),
    ],
)
def test_a_named_gpu(text, gib, count):
    facts = hardware_facts(text)
    assert (facts.memory_bytes, facts.num_devices, facts.device) == (gib * GIB, count, "cuda")


@pytest.mark.parametrize("text", ["h1000", "0GB", "99999GB", "1.2.3GB", "0xh100", ""])
def test_a_wrong_gpu_is_refused(text):
    with pytest.raises(BadInput):
        hardware_facts(text)


def test_this_machine_has_memory():
    facts = hardware_facts("cpu")
    assert facts.memory_bytes > 2**28
    assert facts.num_cpu_threads >= 1
    assert not hardware_facts("t4").supports_bf16
    assert min(CARDS_GIB.values()) >= 8


def test_a_missing_nvidia_tool_means_no_gpu(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert hardware_facts().device in ("cpu", "mps")


def test_nvidia_smi_is_read(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 9.0'\necho 'NVIDIA H200, 143771, 9.0'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    facts = hardware_facts()
    assert (facts.name, facts.num_devices, facts.supports_bf16) == ("NVIDIA H200", 2, True)
    assert facts.memory_bytes == 143771 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert hardware_facts().num_devices == 1


def test_a_failing_nvidia_smi_means_no_gpu(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert hardware_facts().device != "cuda"


def jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_data_facts_of_pairs(tmp_path):
    rows = [{"prompt": f"{n:040}", "completion": "b" * 400} for n in range(1000)]
    facts = data_facts(DataSpec(path=jsonl(tmp_path / "d.jsonl", rows)))
    assert (facts.format, facts.task) == ("prompt_completion", "causal")
    assert facts.num_rows + facts.num_eval_rows == 1000
    assert facts.num_trained_tokens == 106 * facts.num_rows
    assert facts.num_tokens == 122 * facts.num_rows
    assert facts.is_estimate


def test_the_sample_is_spread_over_the_file(tmp_path):
    rows = [{"text": f"{n:04}"[:4] if n < 9_000 else f"{n:04000}"} for n in range(10_000)]
    facts = data_facts(DataSpec(path=jsonl(tmp_path / "d.jsonl", rows)))
    assert facts.num_tokens == pytest.approx((9_000 + 1_000 * 1000) / 10_000 * facts.num_rows, rel=0.15)
    assert facts.length_max == 1000


def test_labels_are_a_classification_task(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("text,label\n" + "".join(f"word {n},{n % 3}\n" for n in range(300)))
    facts = data_facts(DataSpec(path=str(path)))
    assert (facts.task, facts.num_labels) == ("classification", 3)


@pytest.mark.parametrize("text", ["", "not json\n", "[1]\n", '{"a": \n'])
def test_bad_data_say_where(tmp_path, text):
    path = tmp_path / "d.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput):
        data_facts(DataSpec(path=str(path)))


def test_chinese_takes_more_tokens_a_character():
    assert estimated_tokens("识别并解释给定列表" * 10) > 2 * estimated_tokens("abcdefghi" * 10)
    assert estimated_tokens("") == 0


def test_token_estimates_on_real_instruction_data():
    """Against a real tokenizer the estimate is within a third (needs the shared data and its tokenizer; skipped
    without)."""
    shared = os.environ.get("FINESTEP_SHARED_DATA")
    if not shared:
        pytest.skip("FINESTEP_SHARED_DATA is not set")
    for name, low, high in (("alpaca_en_demo.json", 150, 320), ("alpaca_zh_demo.json", 150, 420)):
        facts = data_facts(DataSpec(path=str(Path(shared) / "instruct" / name)))
        assert low < facts.num_tokens / facts.num_rows < high


@pytest.mark.parametrize(
    ("name", "billions", "active", "family", "is_instruct"),
    [
        ("/data/models/Qwen2.5-14B/", 14.77, None, "qwen2", None),
        ("unsloth/gemma-2-9b-bnb-4bit", 9.242, None, "gemma2", None),
        ("my_Mistral-7B-Instruct-v0.3-AWQ", 7.248, None, "mistral", True),
        ("us/support-bot-13b-chat", 13, None, None, True),
        ("bigscience/bloom-7b1", 7.1, None, "bloom", None),
        ("us/Qwen3-80B-A3B", 80, 3, "qwen3", None),
        ("us/mix-8x3b", 24, 6, None, None),
        ("models--Qwen--Qwen3-4B/snapshots/0a1b", 4.022, None, "qwen3", True),
        ("gemma-3-12b", 12.2, None, "gemma3", None),
        ("us/xlm-roberta-large-ours", 0.335, None, "xlm-roberta", None),
    ],
)
def test_a_name_tells_size_and_family(name, billions, active, family, is_instruct):
    facts = facts_from_name(name)
    assert facts.num_parameters / 1e9 == pytest.approx(billions, rel=1e-3)
    assert (facts.num_active_parameters or 0) / 1e9 == (active or 0)
    assert (facts.family, facts.is_instruct) == (family, is_instruct)
    assert facts.is_encoder == (family == "xlm-roberta")


@pytest.mark.parametrize("name", ["run3", "/data/checkpoint-500", "v2.0", "llama", "4bit", "us/model-v1.5"])
def test_a_name_without_a_size_tells_nothing(name):
    assert facts_from_name(name) is None


@pytest.mark.parametrize("size", ["1B", "3B", "7B", "13B", "70B", "405B"])
def test_a_bare_size_has_a_shape_of_that_size(size):
    facts = with_usual_shape(facts_from_size(size))
    counted = facts_from_config(stand_in_config(facts), name="x", source="x").num_parameters
    assert counted == pytest.approx(facts.num_parameters, rel=0.06)
