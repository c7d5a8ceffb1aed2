"""What pretraining and fine-tuning share: outcomes, checkpoints, seeds."""
