"""Write knowledge/data/models.jsonl: shapes of well-known models as published in their config.json files.

A row: name, family (`model_type`), lineage, parameters (billion, total / active), layers, hidden, intermediate, heads,
key-value heads, vocabulary, context, flags (t tied embeddings, e encoder, i instruct), pre-training rate.
A test recomputes the parameters of the dense models from their shapes.
"""

from __future__ import annotations

import json
from pathlib import Path

OUT = Path(__file__).parents[2] / "src/finestep/knowledge/data/models.jsonl"
ROWS = """
meta-llama/Llama-3.2-1B llama llama 1.236 - 16 2048 8192 32 8 128256 131072 t -
meta-llama/Llama-3.2-1B-Instruct llama llama 1.236 - 16 2048 8192 32 8 128256 131072 ti -
meta-llama/Llama-3.2-3B llama llama 3.213 - 28 3072 8192 24 8 128256 131072 t -
meta-llama/Llama-3.2-3B-Instruct llama llama 3.213 - 28 3072 8192 24 8 128256 131072 ti -
meta-llama/Llama-3.1-8B llama llama 8.030 - 32 4096 14336 32 8 128256 131072 - 3e-4
meta-llama/Llama-3.1-8B-Instruct llama llama 8.030 - 32 4096 14336 32 8 128256 131072 i 3e-4
meta-llama/Meta-Llama-3-8B llama llama 8.030 - 32 4096 14336 32 8 128256 8192 - 3e-4
meta-llama/Meta-Llama-3-8B-Instruct llama llama 8.030 - 32 4096 14336 32 8 128256 8192 i 3e-4
meta-llama/Llama-3.1-70B llama llama 70.554 - 80 8192 28672 64 8 128256 131072 - 1.5e-4
meta-llama/Llama-3.1-70B-Instruct llama llama 70.554 - 80 8192 28672 64 8 128256 131072 i 1.5e-4
meta-llama/Llama-3.3-70B-Instruct llama llama 70.554 - 80 8192 28672 64 8 128256 131072 i -
meta-llama/Llama-3.1-405B llama llama 405.853 - 126 16384 53248 128 8 128256 131072 - 8e-5
meta-llama/Llama-2-7b-hf llama llama 6.738 - 32 4096 11008 32 32 32000 4096 - 3e-4
meta-llama/Llama-2-7b-chat-hf llama llama 6.738 - 32 4096 11008 32 32 32000 4096 i 3e-4
meta-llama/Llama-2-13b-hf llama llama 13.016 - 40 5120 13824 40 40 32000 4096 - 3e-4
meta-llama/Llama-2-70b-hf llama llama 68.977 - 80 8192 28672 64 8 32000 4096 - 1.5e-4
huggyllama/llama-7b llama llama 6.738 - 32 4096 11008 32 32 32000 2048 - 3e-4
TinyLlama/TinyLlama-1.1B-Chat-v1.0 llama llama 1.100 - 22 2048 5632 32 4 32000 2048 i 4e-4
Qwen/Qwen3-0.6B qwen3 qwen3 0.596 - 28 1024 3072 16 8 151936 40960 ti -
Qwen/Qwen3-0.6B-Base qwen3 qwen3 0.596 - 28 1024 3072 16 8 151936 32768 t -
Qwen/Qwen3-1.7B qwen3 qwen3 1.721 - 28 2048 6144 16 8 151936 40960 ti -
Qwen/Qwen3-1.7B-Base qwen3 qwen3 1.721 - 28 2048 6144 16 8 151936 32768 t -
Qwen/Qwen3-4B qwen3 qwen3 4.022 - 36 2560 9728 32 8 151936 40960 ti -
Qwen/Qwen3-4B-Base qwen3 qwen3 4.022 - 36 2560 9728 32 8 151936 32768 t -
Qwen/Qwen3-4B-Instruct-2507 qwen3 qwen3 4.022 - 36 2560 9728 32 8 151936 262144 ti -
Qwen/Qwen3-8B qwen3 qwen3 8.191 - 36 4096 12288 32 8 151936 40960 i -
Qwen/Qwen3-8B-Base qwen3 qwen3 8.191 - 36 4096 12288 32 8 151936 32768 - -
Qwen/Qwen3-14B qwen3 qwen3 14.768 - 40 5120 17408 40 8 151936 40960 i -
Qwen/Qwen3-32B qwen3 qwen3 32.762 - 64 5120 25600 64 8 151936 40960 i -
Qwen/Qwen3-30B-A3B qwen3_moe qwen3 30.532 3.34 48 2048 768 32 4 151936 40960 i -
Qwen/Qwen3-30B-A3B-Base qwen3_moe qwen3 30.532 3.34 48 2048 768 32 4 151936 32768 - -
Qwen/Qwen3-30B-A3B-Instruct-2507 qwen3_moe qwen3 30.532 3.34 48 2048 768 32 4 151936 262144 i -
Qwen/Qwen3-235B-A22B-Instruct-2507 qwen3_moe qwen3 235.094 22.2 94 4096 1536 64 4 151936 262144 i -
Qwen/Qwen3-VL-30B-A3B-Instruct qwen3_vl_moe qwen3 31.1 3.34 48 2048 768 32 4 151936 262144 i -
Qwen/Qwen3-VL-235B-A22B-Instruct qwen3_vl_moe qwen3 235.7 22.2 94 4096 1536 64 4 151936 262144 i -
Qwen/Qwen3.5-4B qwen3_5 qwen3.5 4.7 - 32 2560 9216 16 4 248320 262144 ti -
Qwen/Qwen3.5-9B qwen3_5 qwen3.5 9.7 - 32 4096 12288 16 4 248320 262144 i -
Qwen/Qwen3.5-9B-Base qwen3_5 qwen3.5 9.7 - 32 4096 12288 16 4 248320 262144 - -
Qwen/Qwen3.5-27B qwen3_5 qwen3.5 27.8 - 64 5120 17408 24 4 248320 262144 i -
Qwen/Qwen3.6-27B qwen3_5 qwen3.5 27.8 - 64 5120 17408 24 4 248320 262144 i -
Qwen/Qwen3.5-35B-A3B qwen3_5_moe qwen3.5 36 3 40 2048 512 16 2 248320 262144 i -
Qwen/Qwen3.5-35B-A3B-Base qwen3_5_moe qwen3.5 36 3 40 2048 512 16 2 248320 262144 - -
Qwen/Qwen3.6-35B-A3B qwen3_5_moe qwen3.5 36 3 40 2048 512 16 2 248320 262144 i -
Qwen/Qwen3.5-397B-A17B qwen3_5_moe qwen3.5 397 17 60 4096 1024 32 2 248320 262144 i -
Qwen/Qwen2.5-0.5B qwen2 qwen2 0.494 - 24 896 4864 14 2 151936 32768 t -
Qwen/Qwen2.5-0.5B-Instruct qwen2 qwen2 0.494 - 24 896 4864 14 2 151936 32768 ti -
Qwen/Qwen2.5-1.5B qwen2 qwen2 1.544 - 28 1536 8960 12 2 151936 131072 t -
Qwen/Qwen2.5-1.5B-Instruct qwen2 qwen2 1.544 - 28 1536 8960 12 2 151936 32768 ti -
Qwen/Qwen2.5-3B qwen2 qwen2 3.086 - 36 2048 11008 16 2 151936 32768 t -
Qwen/Qwen2.5-7B qwen2 qwen2 7.616 - 28 3584 18944 28 4 152064 131072 - -
Qwen/Qwen2.5-7B-Instruct qwen2 qwen2 7.616 - 28 3584 18944 28 4 152064 32768 i -
Qwen/Qwen2.5-14B qwen2 qwen2 14.770 - 48 5120 13824 40 8 152064 131072 - -
Qwen/Qwen2.5-32B qwen2 qwen2 32.764 - 64 5120 27648 40 8 152064 131072 - -
Qwen/Qwen2.5-72B qwen2 qwen2 72.706 - 80 8192 29568 64 8 152064 131072 - -
google/gemma-3-1b-pt gemma3_text gemma3 1.000 - 26 1152 6912 4 1 262144 32768 t -
google/gemma-3-1b-it gemma3_text gemma3 1.000 - 26 1152 6912 4 1 262144 32768 ti -
google/gemma-3-4b-pt gemma3 gemma3 4.300 - 34 2560 10240 8 4 262208 131072 t -
google/gemma-3-4b-it gemma3 gemma3 4.300 - 34 2560 10240 8 4 262208 131072 ti -
google/gemma-3-12b-pt gemma3 gemma3 12.2 - 48 3840 15360 16 8 262208 131072 t -
google/gemma-3-12b-it gemma3 gemma3 12.2 - 48 3840 15360 16 8 262208 131072 ti -
google/gemma-3-27b-pt gemma3 gemma3 27.4 - 62 5376 21504 32 16 262208 131072 t -
google/gemma-3-27b-it gemma3 gemma3 27.4 - 62 5376 21504 32 16 262208 131072 ti -
google/gemma-2-2b gemma2 gemma2 2.614 - 26 2304 9216 8 4 256000 8192 t -
google/gemma-2-9b gemma2 gemma2 9.242 - 42 3584 14336 16 8 256000 8192 t -
google/gemma-2b gemma gemma 2.506 - 18 2048 16384 8 1 256000 8192 t -
google/gemma-7b gemma gemma 8.538 - 28 3072 24576 16 16 256000 8192 t -
mistralai/Mistral-7B-v0.1 mistral mistral 7.242 - 32 4096 14336 32 8 32000 32768 - -
mistralai/Mistral-7B-Instruct-v0.3 mistral mistral 7.248 - 32 4096 14336 32 8 32768 32768 i -
mistralai/Mixtral-8x7B-v0.1 mixtral mixtral 46.703 12.88 32 4096 14336 32 8 32000 32768 - -
microsoft/phi-2 phi phi 2.780 - 32 2560 10240 32 32 51200 2048 - -
microsoft/Phi-3-mini-4k-instruct phi3 phi 3.821 - 32 3072 8192 32 32 32064 4096 i -
microsoft/phi-4 phi3 phi 14.660 - 40 5120 17920 40 10 100352 16384 i -
HuggingFaceTB/SmolLM2-135M llama smollm 0.1345 - 30 576 1536 9 3 49152 8192 t 3e-3
HuggingFaceTB/SmolLM2-360M llama smollm 0.3618 - 32 960 2560 15 5 49152 8192 t 3e-3
HuggingFaceTB/SmolLM2-1.7B llama smollm 1.711 - 24 2048 8192 32 32 49152 8192 t 5e-4
deepseek-ai/DeepSeek-V3.1 deepseek_v3 deepseek 671 37 61 7168 2048 128 128 129280 163840 i 2.2e-4
deepseek-ai/DeepSeek-V3.1-Base deepseek_v3 deepseek 671 37 61 7168 2048 128 128 129280 163840 - 2.2e-4
deepseek-ai/DeepSeek-R1-Distill-Qwen-7B qwen2 qwen2 7.616 - 28 3584 18944 28 4 152064 131072 i -
moonshotai/Kimi-K2-Thinking kimi_k2 kimi 1026 32 61 7168 2048 64 64 163840 262144 i 2e-4
moonshotai/Kimi-K2.5 kimi_k25 kimi 1026 32 61 7168 2048 64 64 163840 262144 i -
moonshotai/Kimi-K2.6 kimi_k25 kimi 1026 32 61 7168 2048 64 64 163840 262144 i -
nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16 nemotron_h nemotron 31.6 3.6 52 2688 1856 32 2 131072 262144 i -
nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16 nemotron_h nemotron 120 12 88 4096 2688 32 2 131072 262144 i -
nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16 nemotron_h nemotron 550 55 108 8192 5120 64 2 131072 262144 i -
allenai/OLMo-2-0325-32B olmo2 olmo 32.2 - 64 5120 27648 40 8 100352 4096 - 6e-4
openai/gpt-oss-20b gpt_oss gpt-oss 20.9 3.6 24 2880 2880 64 8 201088 131072 i -
openai/gpt-oss-120b gpt_oss gpt-oss 116.8 5.1 36 2880 2880 64 8 201088 131072 i -
zai-org/chatglm-6b chatglm chatglm 6.173 - 28 4096 16384 32 32 130528 2048 i -
zai-org/chatglm2-6b chatglm chatglm 6.244 - 28 4096 13696 32 2 65024 32768 i -
zai-org/chatglm3-6b chatglm chatglm 6.244 - 28 4096 13696 32 2 65024 8192 i -
openai-community/gpt2 gpt2 gpt2 0.124 - 12 768 3072 12 12 50257 1024 t 6e-4
openai-community/gpt2-medium gpt2 gpt2 0.355 - 24 1024 4096 16 16 50257 1024 t 3e-4
openai-community/gpt2-large gpt2 gpt2 0.774 - 36 1280 5120 20 20 50257 1024 t 2.5e-4
openai-community/gpt2-xl gpt2 gpt2 1.558 - 48 1600 6400 25 25 50257 1024 t 2e-4
EleutherAI/pythia-160m gpt_neox pythia 0.162 - 12 768 3072 12 12 50304 2048 - 6e-4
EleutherAI/pythia-410m gpt_neox pythia 0.405 - 24 1024 4096 16 16 50304 2048 - 3e-4
EleutherAI/pythia-1.4b gpt_neox pythia 1.415 - 24 2048 8192 16 16 50304 2048 - 2e-4
EleutherAI/pythia-6.9b gpt_neox pythia 6.857 - 32 4096 16384 32 32 50432 2048 - 1.2e-4
facebook/opt-125m opt opt 0.125 - 12 768 3072 12 12 50272 2048 t 6e-4
facebook/opt-6.7b opt opt 6.658 - 32 4096 16384 32 32 50272 2048 t 1.2e-4
tiiuae/falcon-7b falcon falcon 6.922 - 32 4544 18176 71 1 65024 2048 t 6e-4
google-bert/bert-base-uncased bert bert 0.1095 - 12 768 3072 12 12 30522 512 te 1e-4
google-bert/bert-large-uncased bert bert 0.335 - 24 1024 4096 16 16 30522 512 te 1e-4
google-bert/bert-base-chinese bert bert 0.1023 - 12 768 3072 12 12 21128 512 te 1e-4
sentence-transformers/all-MiniLM-L6-v2 bert bert 0.0227 - 6 384 1536 12 12 30522 512 te -
distilbert/distilroberta-base roberta roberta 0.0821 - 6 768 3072 12 12 50265 512 te -
distilbert/distilbert-base-uncased distilbert bert 0.0664 - 6 768 3072 12 12 30522 512 te -
FacebookAI/roberta-base roberta roberta 0.1247 - 12 768 3072 12 12 50265 512 te 6e-4
FacebookAI/roberta-large roberta roberta 0.3554 - 24 1024 4096 16 16 50265 512 te 4e-4
FacebookAI/xlm-roberta-base xlm-roberta xlm-r 0.278 - 12 768 3072 12 12 250002 512 te -
FacebookAI/xlm-roberta-large xlm-roberta xlm-r 0.560 - 24 1024 4096 16 16 250002 512 te -
microsoft/deberta-base deberta deberta 0.139 - 12 768 3072 12 12 50265 512 te -
microsoft/deberta-v3-small deberta-v2 deberta 0.141 - 6 768 3072 12 12 128100 512 te -
microsoft/deberta-v3-base deberta-v2 deberta 0.184 - 12 768 3072 12 12 128100 512 te 6e-4
microsoft/deberta-v3-large deberta-v2 deberta 0.434 - 24 1024 4096 16 16 128100 512 te 3e-4
google/electra-small-discriminator electra electra 0.0135 - 12 256 1024 4 4 30522 512 te 5e-4
google/electra-base-discriminator electra electra 0.109 - 12 768 3072 12 12 30522 512 te 2e-4
google/electra-large-discriminator electra electra 0.334 - 24 1024 4096 16 16 30522 512 te 2e-4
albert/albert-base-v2 albert albert 0.0117 - 12 768 3072 12 12 30000 512 te -
answerdotai/ModernBERT-base modernbert modernbert 0.149 - 22 768 1152 12 12 50368 8192 te 8e-4
answerdotai/ModernBERT-large modernbert modernbert 0.395 - 28 1024 2624 16 16 50368 8192 te 5e-4
"""


def main() -> None:
    """Write the table."""
    OUT.write_text(
        "".join(json.dumps(as_row(line), separators=(",", ":")) + "\n" for line in ROWS.strip().splitlines())
    )


def as_row(line: str) -> dict[str, object]:
    """One line of the table as named values; absent values are left out."""
    name, family, lineage, total, active, layers, hidden, inner, heads, kv, vocabulary, context, flags, rate = (
        line.split()
    )
    row: dict[str, object] = {
        "name": name,
        "family": family,
        "lineage": lineage,
        "num_parameters": round(float(total) * 1e9),
    }
    if active != "-":
        row["num_active_parameters"] = round(float(active) * 1e9)
    row |= {"num_layers": int(layers), "hidden_size": int(hidden), "intermediate_size": int(inner)}
    row |= {"num_attention_heads": int(heads), "num_key_value_heads": int(kv)}
    row |= {"vocabulary_size": int(vocabulary), "context_length": int(context), "tied_embeddings": "t" in flags}
    row |= {"is_encoder": "e" in flags, "is_instruct": "i" in flags}
    if rate != "-":
        row["pretraining_learning_rate"] = float(rate)
    return row


if __name__ == "__main__":
    main()
