"""How good a model and its texts are: pure measures of batches, token ids and strings, which know no run and no family.

Read in this order: `likelihood` (the negative log-likelihood of held-out text), `writing_systems` (which characters
belong to which script, and how the measures cut words and sentences), `diversity` (how varied generated texts are, how
much they repeat and copy), `quality_diversity` (BLEU against a whole text, and self-BLEU), `ngram_baseline` (a trigram
model to compare with), `references` (exact match, BLEU, chrF and ROUGE against reference texts), `plots` (the figures
that training and evaluation draw), `quality_report` and `quality_plot` (quality against diversity as a table, in a
sentence and in a plot).
"""
