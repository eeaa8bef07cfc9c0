"""Prompts and options of `generate`."""

PROMPTS = []
