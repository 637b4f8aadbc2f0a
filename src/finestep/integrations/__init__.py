"""For people who keep their own loop: a Trainer callback, an Optuna sampler."""
