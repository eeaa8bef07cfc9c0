"""From a run to texts, figures and exports. In reading order: generation (the verb `generate`), evaluation (the verb
`evaluate`), quality (the verb `quality`: several runs side by side, and real text), export (one SavedModel, text in and
text out), codes (the verbs of models with a latent code).
"""
