"""What the tests of the data share."""

import pytest

from pipeline.config import CorpusConfig


@pytest.fixture
def inspect(tmp_path):
    """Writes a text to a file and inspects it."""
    from pipeline.data import inspection

    def inspect_text(text, name="text.txt", **settings):
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        return inspection.inspect(CorpusConfig(source="files", files=(str(tmp_path / name),), **settings))

    return inspect_text
