"""Transformer-XL on word-level text."""
