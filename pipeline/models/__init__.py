"""Models: what a family promises, and one folder a family.

In reading order: model_config, graph (a model's calls), network (all steps at once), step_by_step (decoding), contract
(`Family`), pair_family, the families' folders, and families, the table that makes them known. docs/ADDING_A_FAMILY.md
shows how to add one.
"""
