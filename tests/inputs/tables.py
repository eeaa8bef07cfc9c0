"""Tables and pairs."""

TABLES = []
