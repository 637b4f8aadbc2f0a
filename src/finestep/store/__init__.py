"""The study on disk: Optuna storage, step logs, recipe files; the controller is the only writer."""
