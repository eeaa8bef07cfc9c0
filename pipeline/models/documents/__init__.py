"""The networks of the documents that this project grew out of, layer by layer as written there, on stock Keras layers:
config, last_step (what those on running text share), document_000, document_001 (002, too), document_003, document_004,
generate_text.
"""
