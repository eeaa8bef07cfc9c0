"""Subwords: the sample of the text that a model is trained on. What the model does is tested with the tokenizer."""

from pipeline.data import subwords


def test_the_sample_is_bounded_and_repeatable():
    lines = [f"line {i} " + "x" * (i % 50) + "\n" for i in range(2000)]
    sample = subwords.sample_lines(lines, 5000)
    assert 4900 < sum(map(len, sample)) <= 5000
    assert sample == subwords.sample_lines(["".join(lines[:700]), "".join(lines[700:])], 5000)
    numbers = [int(sentence.split()[1]) for sentence in sample]
    assert numbers == sorted(numbers) and 700 < sum(numbers) / len(numbers) < 1300  # from everywhere
    assert [len(cut) for cut in subwords.sample_lines(["y" * 2500], 5000)] == [1000, 1000, 500]
