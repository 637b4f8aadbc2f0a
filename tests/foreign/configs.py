"""Forty configs and scripts of other tools, written for this test: what each says in our words, and what is wrong with it.

Each is of a kind that people bring; the values are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any


@dataclass(frozen=True)
class Config:
    """A file, the tool that it belongs to, what it says, and the verdicts of its review by topic."""

    file: str
    text: str
    tool: str
    says: Mapping[str, Any]
    verdicts: Mapping[str, str] = field(default_factory=dict)


def _config(file: str, tool: str, text: str, says: Mapping[str, Any], **verdicts: str) -> Config:
    return Config(file, dedent(text).lstrip("\n"), tool, says, verdicts)


LLAMA_FACTORY = [
    _config(
        "lf_dora.yaml",
        "llamafactory",
        """
        model_name_or_path: /mnt/nas/weights/Qwen2.5-7B-Instruct
        stage: sft
        finetuning_type: lora
        use_dora: true
        lora_rank: 32
        lora_target: q_proj,v_proj
        dataset: ours_a,ours_b
        template: qwen
        cutoff_len: 2048
        max_samples: 500
        val_size: 0.1
        per_device_train_batch_size: 1
        gradient_accumulation_steps: 4
        learning_rate: 1.0e-4
        num_train_epochs: 30.0
        warmup_ratio: 0.1
        bf16: true
        """,
        {
            "method": "lora",
            "variant": "dora",
            "max_samples": 1000,
            "eval_share": 0.1,
            "lora_rank": 32,
            "target_modules": ("q_proj", "v_proj"),
            "max_steps": None,
            "precision": "bf16",
        },
        num_epochs="change",
    ),
    _config(
        "lf_dpo.yaml",
        "llamafactory",
        """
        model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
        stage: dpo
        do_train: true
        finetuning_type: lora
        pref_beta: 0.1
        dataset: pairs
        cutoff_len: 2048
        per_device_train_batch_size: 1
        gradient_accumulation_steps: 8
        learning_rate: 5.0e-6
        num_train_epochs: 3.0
        """,
        {"objective": "dpo", "learning_rate": 5e-6},
        learning_rate="not judged",
    ),
    _config(
        "lf_freeze.yaml",
        "llamafactory",
        """
        model_name_or_path: mistralai/Mistral-7B-v0.1
        stage: sft
        finetuning_type: freeze
        freeze_trainable_layers: 2
        template: mistral
        cutoff_len: 1024
        learning_rate: 1.0e-5
        per_device_train_batch_size: 4
        """,
        {"method": "freeze", "accumulation_steps": None},
        learning_rate="not judged",
    ),
    _config(
        "lf_full_z2.yaml",
        "llamafactory",
        """
        model_name_or_path: Qwen/Qwen2.5-1.5B
        stage: sft
        do_train: true
        finetuning_type: full
        deepspeed: examples/deepspeed/ds_z2_config.json
        template: qwen
        dataset: chats
        cutoff_len: 1024
        learning_rate: 2.0e-5
        per_device_train_batch_size: 4
        gradient_accumulation_steps: 8
        max_steps: 900
        num_train_epochs: 3
        warmup_steps: 30
        """,
        {"method": "full", "sharding": "zero-2", "max_steps": 900, "warmup": 30},
        learning_rate="fine",
        warmup="fine",
        num_steps="fine",
    ),
]
AXOLOTL = [
    _config(
        "qlora.yml",
        "axolotl",
        """
        base_model: NousResearch/Meta-Llama-3.1-70B
        load_in_4bit: true
        adapter: qlora
        datasets:
          - path: ours.jsonl
            type: chat_template
        sequence_len: 4096
        sample_packing: true
        lora_r: 16
        lora_alpha: 32
        lora_target_linear: true
        gradient_accumulation_steps: 4
        micro_batch_size: 1
        num_epochs: 2
        optimizer: paged_adamw_8bit
        lr_scheduler: cosine
        learning_rate: 2e-4
        warmup_ratio: 0.05
        fsdp:
          - full_shard
          - auto_wrap
        """,
        {"method": "qlora", "sharding": "fsdp", "packing": True, "text_rate": True, "optimizer": "paged_adamw_8bit"},
        packing="consider",
        num_epochs="fine",
    ),
    _config(
        "full.yml",
        "axolotl",
        """
        base_model: Qwen/Qwen2.5-14B
        datasets:
          - path: ours.jsonl
            type: alpaca
        sequence_len: 2048
        micro_batch_size: 1
        gradient_accumulation_steps: 2
        num_epochs: 3
        learning_rate: 0.0003
        warmup_steps: 10
        deepspeed: deepspeed_configs/zero3_bf16.json
        """,
        {"method": "full", "sharding": "zero-3", "lora_rank": None},
        learning_rate="change",
    ),
    _config(
        "dpo.yml",
        "axolotl",
        """
        base_model: mistralai/Mistral-7B-Instruct-v0.3
        rl: dpo
        adapter: lora
        lora_r: 32
        lora_alpha: 16
        datasets:
          - path: pairs
        micro_batch_size: 2
        gradient_accumulation_steps: 4
        learning_rate: 0.000005
        num_epochs: 1
        """,
        {"objective": "dpo"},
        learning_rate="not judged",
    ),
    _config(
        "long_warmup.yml",
        "axolotl",
        """
        base_model: meta-llama/Llama-3.2-1B
        adapter: lora
        lora_r: 8
        lora_alpha: 16
        datasets:
          - path: d.jsonl
        sequence_len: 1024
        micro_batch_size: 4
        gradient_accumulation_steps: 4
        max_steps: 400
        learning_rate: 0.0003
        warmup_steps: 300
        """,
        {"max_steps": 400, "warmup": 300},
        warmup="change",
        learning_rate="fine",
    ),
]
MLX = [
    _config(
        "mlx_small.yaml",
        "mlx_lm",
        """
        model: mlx-community/Qwen3-4B-4bit
        train: true
        data: ./data
        iters: 600
        batch_size: 2
        grad_accumulation_steps: 4
        learning_rate: 2e-5
        lora_parameters:
          rank: 16
          scale: 10.0
          dropout: 0.05
        lr_schedule:
          name: cosine_decay
          warmup: 20
          arguments: [2e-5, 130, 1e-7]
        """,
        {
            "method": "qlora",
            "max_steps": 150,
            "lora_alpha": 160.0,
            "decay_steps": 150,
            "warmup": 20,
            "micro_batch_size": 2,
        },
        schedule="fine",
        warmup="fine",
    ),
    _config(
        "mlx_full.yaml",
        "mlx_lm",
        """
        model: Qwen/Qwen3-0.6B
        fine_tune_type: full
        train: true
        data: ./data
        iters: 2000
        batch_size: 4
        num_layers: -1
        learning_rate: 1e-5
        """,
        {"method": "full", "lora_rank": None, "lora_alpha": None, "max_steps": 2000, "schedule": "constant"},
        learning_rate="fine",
    ),
    _config(
        "mlx_run.sh",
        "mlx_lm",
        """
        python -m mlx_lm lora --model mistralai/Mistral-7B-v0.1 --train --data ./data \\
          --iters 1000 --batch-size 4 --learning-rate 1e-3 --num-layers 16
        """,
        {"method": "lora", "lora_rank": 8, "lora_alpha": 160.0, "learning_rate": 1e-3, "max_steps": 1000},
        learning_rate="change",
    ),
]
TORCHTUNE = [
    _config(
        "tt_full.yaml",
        "torchtune",
        """
        output_dir: /tmp/out
        lr: 5e-6
        tokenizer:
          _component_: torchtune.models.qwen2_5.qwen2_5_tokenizer
          max_seq_len: 4096
        model:
          _component_: torchtune.models.qwen2_5.qwen2_5_7b_instruct
        epochs: 2
        batch_size: 2
        gradient_accumulation_steps: 8
        max_steps_per_epoch: 300
        optimizer:
          _component_: torch.optim.AdamW
          lr: ${lr}
        lr_scheduler:
          _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
          num_warmup_steps: 30
        clip_grad_norm: 1.0
        """,
        {"method": "full", "learning_rate": 5e-6, "max_steps": 600, "model": "qwen-2.5-7b-instruct", "warmup": 30},
        learning_rate="fine",
        warmup="fine",
    ),
    _config(
        "tt_run.sh",
        "torchtune",
        """
        tune run --nproc_per_node 4 lora_finetune_distributed --config llama3_1/8B_lora \\
          optimizer.lr=3e-4 model.lora_rank=16 model.lora_alpha=32 batch_size=2 gradient_accumulation_steps=4 epochs=1
        """,
        {"method": "lora", "learning_rate": 3e-4, "num_devices": 4, "lora_rank": 16, "micro_batch_size": 2},
        effective_batch_size="fine",
    ),
]
LITGPT = [
    _config(
        "litgpt_lora.yaml",
        "litgpt",
        """
        checkpoint_dir: checkpoints/meta-llama/Llama-3.2-3B
        precision: bf16-true
        devices: 2
        lora_r: 16
        lora_alpha: 32
        lora_query: true
        lora_key: false
        lora_value: true
        data:
          class_path: litgpt.data.Alpaca2k
        train:
          global_batch_size: 16
          micro_batch_size: 2
          lr_warmup_fraction: 0.2
          epochs: 4
          max_seq_length: 512
        optimizer:
          class_path: torch.optim.AdamW
          init_args:
            lr: 0.0002
            weight_decay: 0.0
        """,
        {
            "model": "meta-llama/Llama-3.2-3B",
            "method": "lora",
            "num_devices": 2,
            "effective_batch_size": 16,
            "warmup": 0.05,
            "target_modules": ("q_proj", "v_proj"),
            "precision": "bf16",
        },
        learning_rate="fine",
        warmup="fine",
    ),
    _config(
        "litgpt_full.sh",
        "litgpt",
        """
        litgpt finetune_full checkpoints/microsoft/phi-2 --train.epochs 3 --train.global_batch_size 64 \\
            --train.micro_batch_size 4 --optimizer.init_args.lr 1e-3 --devices 4
        """,
        {"method": "full", "learning_rate": 1e-3, "effective_batch_size": 64, "num_devices": 4},
        learning_rate="change",
    ),
]
TRL = [
    _config(
        "sft.yaml",
        "trl",
        """
        model_name_or_path: Qwen/Qwen2.5-0.5B
        dataset_name: trl-lib/Capybara
        use_peft: true
        lora_r: 64
        lora_alpha: 16
        lora_target_modules: all-linear
        per_device_train_batch_size: 8
        gradient_accumulation_steps: 2
        learning_rate: 5.0e-04
        num_train_epochs: 1
        max_length: 2048
        """,
        {"method": "lora", "target_modules": None, "lora_rank": 64},
        learning_rate="fine",
        warmup="consider",
    ),
    _config(
        "handbook.yaml",
        "trl",
        """
        model_name_or_path: mistralai/Mistral-7B-v0.1
        torch_dtype: bfloat16
        dataset_mixer:
          org/chats: 1.0
        bf16: true
        gradient_accumulation_steps: 1
        gradient_checkpointing: true
        learning_rate: 2.0e-03
        lr_scheduler_type: cosine
        max_seq_length: 2048
        num_train_epochs: 1
        per_device_train_batch_size: 16
        warmup_ratio: 0.1
        """,
        {"method": "full", "checkpointing": True, "warmup": 0.1},
        learning_rate="change",
    ),
    _config(
        "trl_run.sh",
        "trl",
        """
        accelerate launch --num_processes 8 --config_file zero3.yaml \\
          -m trl sft --model_name_or_path meta-llama/Llama-3.1-8B --dataset_name ours \\
          --learning_rate 2e-5 --per_device_train_batch_size 2 --gradient_accumulation_steps 4 --num_train_epochs 2 --warmup_ratio 0.03
        """,
        {"method": "full", "num_devices": 8, "sharding": "zero-3"},
        learning_rate="fine",
        effective_batch_size="fine",
    ),
    _config(
        "sft_script.py",
        "trl",
        """
        import torch
        from datasets import load_dataset
        from peft import LoraConfig
        from trl import SFTConfig, SFTTrainer

        BASE = "google/gemma-2-9b"
        LR = 2e-4 * 10
        epochs = 2
        peft_config = LoraConfig(r=16, lora_alpha=2 * 16, target_modules="all-linear", lora_dropout=0.05)
        args = SFTConfig(output_dir="out", learning_rate=LR, num_train_epochs=epochs, per_device_train_batch_size=4,
                         gradient_accumulation_steps=4, warmup_ratio=0.03, bf16=True)
        trainer = SFTTrainer(model=BASE, args=args, peft_config=peft_config, train_dataset=load_dataset("json", data_files="x.jsonl"))
        """,
        {"model": "google/gemma-2-9b", "method": "lora", "learning_rate": 2e-3, "lora_alpha": 32.0, "num_epochs": 2.0},
        learning_rate="change",
    ),
    _config(
        "grpo.py",
        "trl",
        """
        from trl import GRPOConfig, GRPOTrainer
        args = GRPOConfig(learning_rate=1e-6, num_generations=8, per_device_train_batch_size=8, max_steps=500)
        trainer = GRPOTrainer(model="Qwen/Qwen2.5-1.5B-Instruct", args=args, reward_funcs=[len])
        """,
        {"objective": "grpo", "learning_rate": 1e-6, "max_steps": 500},
        learning_rate="not judged",
    ),
]
SWIFT = [
    _config(
        "swift.sh",
        "ms-swift",
        """
        NPROC_PER_NODE=4 \\
        CUDA_VISIBLE_DEVICES=0,1,2,3 \\
        swift sft \\
            --model Qwen/Qwen2.5-7B-Instruct \\
            --train_type lora \\
            --dataset 'org/chats-zh#500' 'org/chats-en#500' \\
            --num_train_epochs 10 \\
            --per_device_train_batch_size 1 \\
            --gradient_accumulation_steps 16 \\
            --learning_rate 1e-4 --lora_rank 8 --lora_alpha 32 \\
            --deepspeed zero2 --max_length 2048 --warmup_ratio 0.05
        """,
        {"num_devices": 4, "max_samples": 1000, "sharding": "zero-2", "method": "lora", "lora_alpha": 32.0},
        num_epochs="consider",
    ),
    _config(
        "swift.yaml",
        "ms-swift",
        """
        model: Qwen/Qwen3-8B
        tuner_type: full
        dataset: [ours.jsonl]
        torch_dtype: bfloat16
        learning_rate: 2.0e-5
        per_device_train_batch_size: 1
        gradient_accumulation_steps: 32
        num_train_epochs: 2
        """,
        {"method": "full", "accumulation_steps": 32, "precision": "bf16"},
        learning_rate="fine",
        warmup="consider",
    ),
]
DEEPSPEED = [
    _config(
        "ds_auto.json",
        "deepspeed",
        """
        {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
         "optimizer": {"type": "AdamW", "params": {"lr": 4e-2, "weight_decay": 0.5}},
         "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 50, "total_num_steps": 2000}},
         "bf16": {"enabled": true}, "zero_optimization": {"stage": 3}}
        """,
        {"learning_rate": 4e-2, "max_steps": 2000, "warmup": 50, "sharding": "zero-3", "micro_batch_size": None},
        learning_rate="change",
        warmup="fine",
        weight_decay="consider",
    ),
    _config(
        "ds_product.json",
        "deepspeed",
        """
        {"train_batch_size": 96, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3,
         "optimizer": {"type": "Lion", "params": {"lr": 3e-5}}, "zero_optimization": {"stage": 1}}
        """,
        {"num_devices": 8, "effective_batch_size": 96, "optimizer": "Lion"},
        learning_rate="not judged",
    ),
]
LUDWIG = [
    _config(
        "ludwig.yaml",
        "ludwig",
        """
        model_type: llm
        base_model: meta-llama/Llama-2-7b-hf
        quantization:
          bits: 4
        adapter:
          type: lora
          r: 16
          alpha: 32
        input_features:
          - name: instruction
            type: text
        output_features:
          - name: output
            type: text
        trainer:
          type: finetune
          learning_rate: 0.004
          batch_size: 2
          gradient_accumulation_steps: 8
          epochs: 3
          learning_rate_scheduler:
            decay: cosine
            warmup_fraction: 0.03
        """,
        {"method": "qlora", "lora_rank": 16, "lora_alpha": 32.0, "micro_batch_size": 2, "warmup": 0.03},
        learning_rate="change",
    ),
    _config(
        "ludwig_full.yaml",
        "ludwig",
        """
        model_type: llm
        base_model: /models/opt-350m
        input_features: [{name: text, type: text}]
        output_features: [{name: answer, type: text}]
        trainer:
          type: finetune
          learning_rate: 0.00002
          batch_size: 8
          epochs: 2
        """,
        {"method": "full", "micro_batch_size": 8, "num_epochs": 2.0},
        warmup="consider",
    ),
]
HYDRA = [
    _config(
        "hydra_own.yaml",
        "unknown",
        """
        defaults:
          - base: small
          - _self_
        lr: 3.0e-4
        backbone:
          pretrained_model_name_or_path: Qwen/Qwen2.5-3B
        adapter:
          rank: 16
          alpha: ${adapter.rank}
        fit:
          optimizer:
            name: adamw
            lr: ${lr}
          batch: {per_device_train_batch_size: 4}
          gradient_accumulation_steps: ${oc.env:ACCUM,4}
          max_steps: ${oc.select:limits.steps,800}
          warmup_steps: 40
        """,
        {
            "learning_rate": 3e-4,
            "lora_alpha": 16.0,
            "accumulation_steps": 4,
            "max_steps": 800,
            "warmup": 40,
            "method": "lora",
        },
        learning_rate="fine",
        warmup="fine",
    ),
    _config(
        "verl_sft.sh",
        "verl",
        """
        set -x
        torchrun --standalone --nnodes=1 --nproc_per_node=8 \\
             -m verl.trainer.fsdp_sft_trainer \\
            data.train_files=$HOME/gsm8k/train.parquet \\
            data.train_batch_size=128 \\
            data.micro_batch_size_per_gpu=4 \\
            model.partial_pretrain=Qwen/Qwen2.5-0.5B-Instruct \\
            optim.lr=1e-5 \\
            trainer.total_epochs=2
        """,
        {"effective_batch_size": 128, "micro_batch_size": 4, "num_devices": 8, "method": "full", "num_epochs": 2.0},
        effective_batch_size="fine",
    ),
    _config(
        "nemo.yaml",
        "nemo",
        """
        trainer:
          devices: 8
          num_nodes: 2
          max_steps: 1000
        model:
          restore_from_path: /nemo/llama3-8b.nemo
          global_batch_size: 128
          micro_batch_size: 1
          peft:
            peft_scheme: lora
            lora_tuning:
              adapter_dim: 32
          optim:
            name: fused_adam
            lr: 1e-4
            sched:
              name: CosineAnnealing
              warmup_steps: 50
        """,
        {
            "num_devices": 16,
            "effective_batch_size": 128,
            "method": "lora",
            "lora_rank": 32,
            "learning_rate": 1e-4,
            "warmup": 50,
        },
        warmup="fine",
    ),
]
SCRIPTS = [
    _config(
        "arrays.sh",
        "megatron",
        """
        GPUS=8
        NODES=2
        TRAINING_ARGS=(
            --micro-batch-size 1
            --global-batch-size 256   # rows
            --train-iters 500
            --lr 2.0e-5
            --min-lr 1.0e-6
            --lr-warmup-iters 600
            --lr-decay-iters 500
            --lr-decay-style cosine
        )
        torchrun --nproc_per_node $GPUS --nnodes $NODES pretrain_gpt.py ${TRAINING_ARGS[@]} --load /ckpt/llama2-7b --seq-length 4096
        """,
        {"num_devices": 16, "effective_batch_size": 256, "max_steps": 500, "warmup": 600, "learning_rate": 2e-5},
        warmup="change",
    ),
    _config(
        "loop.sh",
        "trainer-script",
        """
        for lr in 1e-5 3e-5; do
        python run_finetune.py --model_name_or_path facebook/opt-6.7b --learning_rate $lr --num_train_epochs 3 \\
           --per_device_train_batch_size $((2 * 4)) --output_dir "out/$lr" --max_seq_length 1024
        done
        """,
        {"learning_rate": 1e-5, "micro_batch_size": 8, "method": None},
        learning_rate="consider",
    ),
    _config(
        "include.sh",
        "trainer-script",
        """
        deepspeed --include localhost:2,3 --master_port 29500 train.py --deepspeed ds_zero3.json \\
           --model_name_or_path /models/baichuan-13b --lora_r 8 --lora_alpha 16 \\
           --per_device_train_batch_size 4 --gradient_accumulation_steps 4 --learning_rate 2e-4 \\
           --num_train_epochs 2 --output_dir out --warmup_steps 20
        """,
        {"num_devices": 2, "sharding": "zero-3", "method": "lora", "lora_rank": 8},
        learning_rate="fine",
    ),
    _config(
        "positional.sh",
        "unknown",
        """
        #!/bin/sh
        LR=$1
        python train.py --model "meta-llama/Llama-3.2-1B" --lr $LR --batch-size 16 --epochs 2
        """,
        {"learning_rate": None, "micro_batch_size": 16, "num_epochs": 2.0},
        learning_rate="change",
    ),
    _config(
        "openrlhf.sh",
        "openrlhf",
        """
        deepspeed --num_gpus 4 --module openrlhf.cli.train_sft --pretrain Qwen/Qwen2.5-7B --max_epochs 1 \\
          --train_batch_size 128 --micro_train_batch_size 2 --learning_rate 5e-6 --zero_stage 3 --lora_rank 0 --max_len 4096
        """,
        {"method": "full", "effective_batch_size": 128, "micro_batch_size": 2, "sharding": "zero-3", "lora_rank": None},
        learning_rate="consider",
    ),
    _config(
        "loop.py",
        "unknown",
        """
        import argparse, torch
        from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float, default=3e-3)
        parser.add_argument("--batch_size", type=int, default=16)
        parser.add_argument("--epochs", type=int, default=3)
        args = parser.parse_args()
        model = AutoModelForCausalLM.from_pretrained("EleutherAI/pythia-1.4b")
        optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
        scheduler = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=100, num_training_steps=1000)
        """,
        {
            "learning_rate": 3e-3,
            "micro_batch_size": 16,
            "method": "full",
            "model": "EleutherAI/pythia-1.4b",
            "max_steps": 1000,
        },
        learning_rate="change",
        warmup="fine",
    ),
    _config(
        "trainer.py",
        "hf",
        """
        from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments
        name = "roberta-base"
        model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=4)
        args = TrainingArguments("out", learning_rate=2e-5, per_device_train_batch_size=16, num_train_epochs=3, warmup_ratio=0.06)
        Trainer(model=model, args=args).train()
        """,
        {"model": "roberta-base", "method": "full", "learning_rate": 2e-5, "micro_batch_size": 16},
        learning_rate="fine",
    ),
    _config(
        "parsed.py",
        "hf",
        """
        from dataclasses import dataclass, field
        import transformers

        @dataclass
        class ModelArguments:
            model_name_or_path: str = field(default="huggyllama/llama-7b")

        @dataclass
        class TrainingArguments(transformers.TrainingArguments):
            learning_rate: float = field(default=0.02)
            per_device_train_batch_size: int = field(default=4)
            model_max_length: int = field(default=512)

        parser = transformers.HfArgumentParser((ModelArguments, TrainingArguments))
        """,
        {"learning_rate": 0.02, "max_length": 512, "model": "huggyllama/llama-7b", "method": "full"},
        learning_rate="change",
    ),
    _config(
        "xtuner.py",
        "xtuner",
        """
        from peft import LoraConfig
        pretrained_model_name_or_path = "internlm/internlm2-7b"
        batch_size = 1
        accumulative_counts = 16
        max_epochs = 3
        lr = 2e-4
        warmup_ratio = 0.03
        lora = dict(type=LoraConfig, r=64, lora_alpha=16)
        """,
        {"learning_rate": 2e-4, "micro_batch_size": 1, "accumulation_steps": 16, "num_epochs": 3.0},
    ),
]
OTHERS = [
    _config(
        "titan.toml",
        "torchtitan",
        """
        [job]
        dump_folder = "out"
        [model]
        name = "llama3"
        flavor = "8B"
        [optimizer]
        name = "AdamW"
        lr = 3e-4
        [lr_scheduler]
        warmup_steps = 200
        [training]
        local_batch_size = 1
        global_batch_size = 64
        seq_len = 8192
        steps = 1000
        """,
        {"learning_rate": 3e-4, "effective_batch_size": 64, "max_steps": 1000, "warmup": 200, "max_length": 8192},
        warmup="fine",
    ),
    _config(
        "foundry.yaml",
        "llm-foundry",
        """
        max_seq_len: 2048
        model:
          pretrained_model_name_or_path: mosaicml/mpt-7b
        optimizer:
          name: decoupled_adamw
          lr: 6.0e-6
        scheduler:
          name: cosine_with_warmup
          t_warmup: 100ba
        max_duration: 2ep
        global_train_batch_size: 64
        device_train_microbatch_size: 4
        """,
        {"num_epochs": 2.0, "effective_batch_size": 64, "micro_batch_size": 4, "warmup": 100, "learning_rate": 6e-6},
        learning_rate="consider",
    ),
    _config(
        "own.yaml",
        "unknown",
        """
        base: {model_name: meta-llama/Llama-3.1-8B}
        optim: {lr: 1.0e-2}
        batch_size: 8
        epochs: 40
        """,
        {"learning_rate": 1e-2, "micro_batch_size": 8, "num_epochs": 40.0, "method": None, "lora_rank": None},
        learning_rate="change",
        num_epochs="change",
    ),
    _config(
        "own.toml",
        "unknown",
        """
        pretrained = "meta-llama/Llama-3.2-1B"
        [adapter]
        rank = 8
        [trainer]
        lr = 2e-4
        batch_size = 16
        """,
        {"learning_rate": 2e-4, "micro_batch_size": 16, "num_epochs": None, "accumulation_steps": None, "lora_rank": 8},
    ),
    _config(
        "dreambooth.sh",
        "unknown",
        """
        accelerate launch train_dreambooth_lora.py --pretrained_model_name_or_path sd-legacy/v1-5 --instance_data_dir pics \\
          --instance_prompt "a photo of sks dog" --resolution 512 --train_batch_size 1 --learning_rate 1e-4 --max_train_steps 500
        """,
        {"objective": "images"},
        learning_rate="not judged",
    ),
]
CONFIGS = [
    *LLAMA_FACTORY,
    *AXOLOTL,
    *MLX,
    *TORCHTUNE,
    *LITGPT,
    *TRL,
    *SWIFT,
    *DEEPSPEED,
    *LUDWIG,
    *HYDRA,
    *SCRIPTS,
    *OTHERS,
]
