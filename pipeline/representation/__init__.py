"""What the features of an encoder tell and how they are spread, without fine-tuning."""
