"""Silence for the DICOM libraries, whose warnings and log records quote element values."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = tuple(logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "openjpeg", "PIL"))


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress all warnings, and the log records of the DICOM libraries, within the `with` block."""
    levels = [logger.level for logger in _LOGGERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in _LOGGERS:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(_LOGGERS, levels, strict=True):
                logger.setLevel(level)
