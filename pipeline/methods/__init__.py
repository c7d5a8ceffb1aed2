"""Pretraining methods, one file each: settings, names, controls, and the class that trains an encoder by it.

A new method is a new file here that calls `register`; its class may be anywhere, since it is imported when training
starts. Recipes, tables, pages and Dagster assets look methods up in `METHODS`.
"""

from importlib import import_module
from pkgutil import iter_modules

from pipeline.methods.method import METHODS, EncoderSettings, Method, TrainingSettings, register
from pipeline.methods.shown_labels import SHOWN_LABELS, ShownLabels

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "SHOWN_LABELS", "EncoderSettings", "Method", "ShownLabels", "TrainingSettings", "register"]
