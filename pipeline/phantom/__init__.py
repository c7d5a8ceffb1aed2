"""The phantom clinic: a synthetic archive with labelled sets and ground truth."""
