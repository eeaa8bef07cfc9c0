"""The command line: the verbs of the package, `python -m pipeline train kjv-words`.

Read in this order: `arguments` (the arguments that commands share, and the configuration they describe),
`settings_help` (the help text of settings, from the settings themselves), `startup` (how TensorFlow is imported), then
one file for each group of commands: `training`, `generation`, `evaluation`, `quality`, `benchmarks` and `demo`; and
last `main`, with the table of all commands, the parser, and the exit statuses.
"""
