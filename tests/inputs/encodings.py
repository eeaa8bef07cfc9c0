"""Encodings, and files that hold more than their text."""

ENCODINGS = []
