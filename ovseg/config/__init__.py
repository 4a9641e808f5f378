"""Recipes: the schema and how a recipe is found and read."""
