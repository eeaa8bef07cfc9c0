"""What a user may give at the command line, in tables of rows; `tests/test_inputs.py` runs them all."""
