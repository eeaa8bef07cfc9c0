"""What the tests of the data share: configurations of files, and what is in a split."""

from pipeline.config import CorpusConfig
from pipeline.data import corpus

NOTHING_APART = {"validation_share": 0.0, "test_share": 0.0}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(rows, mark="\t"):
    return "".join(mark.join(row) + "\n" for row in rows)


def of_files(*names, **settings):
    return CorpusConfig(source="files", files=tuple(map(str, names)), **settings)


def load_pairs(config):
    return corpus.load(config, has_source=True)


def splits(loaded):
    return loaded.training, loaded.validation, loaded.test


def text(split):
    return "".join(example.target for example in split)


def documents(split):
    """Joins the pieces of each document; one that is cut off at the end of the split counts too."""
    texts, parts = [], []
    for example in split:
        assert example.source is None
        parts.append(example.target)
        if example.ends:
            texts.append("".join(parts))
            parts = []
    return texts + ["".join(parts)] * bool(parts)


def pairs(split):
    """Returns (source, target) of each example, which is a document of its own."""
    found = list(split)
    assert all(example.ends for example in found)
    return [(example.source, example.target) for example in found]


def read_texts(*names, **settings):
    """Reads files of running text as one split, to the end: its documents, each of which ends."""
    examples = list(corpus.read_split(CorpusConfig(source="files", **settings), [str(name) for name in names]))
    assert not examples or examples[-1].ends
    return documents(examples)


def read_pairs(*names, targets=(), **settings):
    """Reads files of pairs as one split, to the end."""
    names, targets = ([str(name) for name in each] for each in (names, targets))
    return pairs(corpus.read_split(CorpusConfig(source="files", **settings), names, targets, has_source=True))
