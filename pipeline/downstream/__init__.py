"""Fine-tuning on labelled tasks (paper section 4.4)."""
