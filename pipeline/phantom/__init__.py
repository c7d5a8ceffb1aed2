"""The archive we ship: a phantom clinic."""
