"""The variational autoencoder of sentences: config, schedules (the weight of the KL term), latent (the code's
distribution and what is measured of it), network, text_functions (from strings to strings, by way of a code).
"""
