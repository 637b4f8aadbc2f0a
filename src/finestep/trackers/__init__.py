"""Experiment trackers: a study's records, written to TensorBoard, W&B, MLflow, trackio or SwanLab by processes of their own."""
