"""The recipes that ship with the project, as package data; `pipeline.recipe` reads them."""
