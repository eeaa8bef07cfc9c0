"""From files to batches.

A corpus is one stream of examples: a target text, the source that it answers (pairs only), and whether the document
ends there. Running text and pairs take the same way and differ only where they really do: in how rows are read, what is
set apart, and in the second column of ids. The files are read in the order in which data flows through them:

* from bytes to examples: `chunks`, `file_cache`, `alphabets`, `detection`, `encodings`, `markup`, `cleaning`, `lines`,
  `examples`, `rows`, `delimited`, `quotes`, `headers`, `json_rows`, `tables`, `parallel`, `readers`
* what is set apart: `splits`
* texts and pairs that need no file: `installed`, `docstrings`, `made_pairs`, `pickled_arrays`, `oracle`, `packaged`,
  `downloads`, `nltk_corpora`
* the front of all these: `corpus`
* from texts to ids: `segmentation`, `subwords`, `graph_cleaning`, `tokenizer`, `token_cache`
* from ids to batches: `shuffling`, `batching`
* what is in a text, before anyone trains on it: `characters`, `inspection`, `inspection_report`; for pairs
  `pair_inspection`, `pair_report`
"""
