"""Recipes: each folder trains one kind of model with this package's optimizers.

A real package, not a bare folder, so that another distribution's top-level `recipes` cannot come first.
"""
