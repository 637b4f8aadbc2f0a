"""finestep's search inside an Optuna study of one's own, around the Hugging Face Trainer.

python optuna_loop.py MODEL DATA.jsonl [--rows 1800] [--trials 12]
"""

import argparse

import optuna
from hf_train import train

from finestep.integrations.optuna import FinestepSampler, HopelessPruner
from finestep.search.space import SearchSpace

LENGTHS = (0.125, 0.35, 1.0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=1800)
    parser.add_argument("--trials", type=int, default=12)
    options = parser.parse_args()

    def objective(trial):
        rate = trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True)
        batch = trial.suggest_categorical("batch_size", [4, 8, 16, 32])
        share = trial.suggest_categorical("fidelity", LENGTHS)
        micro = min(batch, 8)
        return train(
            options.model,
            options.data,
            lr=rate,
            micro_batch=micro,
            accumulation=batch // micro,
            steps=max(1, round(share * options.rows / batch)),
        )

    space = SearchSpace.between((1e-4, 3e-2), (4, 32), fidelities=LENGTHS)
    study = optuna.create_study(sampler=FinestepSampler(space), pruner=HopelessPruner())
    study.optimize(objective, n_trials=options.trials)
    whole = [trial for trial in study.trials if trial.params["fidelity"] == 1.0]
    best = min(whole or study.trials, key=lambda trial: trial.value)
    print(f"best: {best.params} eval_loss {best.value:.4f}")


if __name__ == "__main__":
    main()
