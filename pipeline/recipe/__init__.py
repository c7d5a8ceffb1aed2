"""A recipe: a whole experiment as data, as a methods section would state it. One file per section of its YAML."""

from pipeline.recipe.reading import load_recipe, shipped_recipes
from pipeline.recipe.whole import Recipe

__all__ = ["Recipe", "load_recipe", "shipped_recipes"]
