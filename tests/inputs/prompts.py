"""Prompts and options of `generate`."""

from tests.inputs.rows import Row, book, option, refused, works


def prompt(name: str, command: str, *words: str, **more) -> Row:
    """A command that answers with JSON."""
    return works(name, f"generate {{run}} {command} --json", *words, **more)


PROMPTS = [
    prompt("a prompt that ends in a space", "'我 the light '", '"prompt": "我 the light "', '"prompt_unknown": 0'),
    prompt("a prompt that ends inside a word", "'我 the lig' --temperature 0", '"text": "ht', '"prompt_unknown": 0'),
    works(
        "a prompt of which most is unknown",
        "generate {run} 'Wer nie sein Brot' --json",
        '"prompt_unknown": 4',
        notices=("mostly unknown to the model", "it knows 0 of 4 tokens"),
    ),
    works(
        "prompts saved by Windows' Notepad",
        "generate {run} -",
        "\nthe light",
        stdin="\ufeffthe water\r\nthe light\r\n".encode(),
    ),
    prompt(
        "their marks and line ends",
        "-",
        '"prompt": "我 the water"',
        '"prompt": "喜 light"',
        '"prompt_unknown": 0',
        stdin="\ufeff我 the water\r\n喜 light\r\n".encode(),
    ),
    prompt("prompts in UTF-16 on standard input", "-", '"prompt": "the 我喜"', stdin="the 我喜\n".encode("utf-16")),
    prompt(
        "a prompt in another normal form, with control characters",
        "-",
        '"prompt_unknown": 0',
        stdin="我 the\x00 light\n".encode(),
    ),
    works(
        "a source in another normal form, with spaces around it",
        "generate {pairs} '  0 red bird ' '0 red bird' --json",
        '"prompt_tokens": 3, "prompt_unknown": 0',
    ),
    works("blank lines among the sources", "generate {pairs} -", "\n\n", stdin=b"0 red bird\n\n1 tea\n"),
    works(
        "texts that are cut at their limit",
        "generate {pairs} '0 red bird' --max-new-tokens 1 --temperature 1",
        notices=("did not end by themselves", "--max-new-tokens"),
    ),
    works("options and prompts in any order", "generate --temperature 0 {run} --max-new-tokens 3 the --seed 1", "the"),
    works(
        "a prompt of several lines in a file",
        "generate {run} --file prompt.txt --json",
        '"prompt": "the light\\nthe water"',
        files=book("the light\nthe water\n", "prompt.txt"),
    ),
    refused("a file of a prompt that does not exist", "generate {run} --file none.txt", "none.txt does not exist"),
    refused("a prompt besides a file of one", "generate {run} the --file x.txt", "PROMPT and --file", "leave one out"),
    works(
        "prompts in cp1252 on standard input",
        "generate {run} - --json",
        '"prompt": "the “light” é"',
        notices=("Standard input is read as cp1252", "--encoding NAME"),
        stdin="the “light” é\r\n".encode("cp1252"),
    ),
    works(
        "prompts on standard input, their encoding named",
        "generate {run} - --json --encoding cp1251",
        '"prompt": "свет"',
        stdin="свет\n".encode("cp1251"),
    ),
    refused(
        "an encoding of words on the command line", "generate {run} the --encoding cp1252", "--file or of standard"
    ),
    works(
        "prompts one after the other, in cp1252, with a mark and carriage returns",
        "generate {run} --interactive",
        "the “light”",
        notices=("read as cp1252",),
        stdin=b"\xef\xbb\xbfthe water\r\n" + "the “light”\r\n".encode("cp1252"),
    ),
    works("prompts one after the other", "generate {run} --interactive", "the water", stdin=b"the water\nlight\n"),
    refused("several samples one after the other", "generate {run} --interactive --samples 2", "leave out --samples"),
    prompt("a stop text", "the --stop . --stop '\\n' --max-new-tokens 50", '"ended": true'),
    option("an empty stop text", "--stop ''", "stop=''", "at least one character"),
    prompt("a least number of tokens", "the --min-new-tokens 7 --max-new-tokens 7", '"tokens": 7'),
    option(
        "a least number of tokens above the largest",
        "--min-new-tokens 9 --max-new-tokens 7",
        "min_new_tokens=9 is more than max_new_tokens=7",
    ),
    option(
        "several samples of the likeliest text", "--samples 3 --temperature 0", "the same text 3 times", "--beam-width"
    ),
    option("a length penalty without beams", "--length-penalty 0.6", "length_penalty=0.6", "set beam_width"),
    option("beams with a temperature", "--beam-width 2 --temperature 0.5", "temperature=0.5 has no meaning"),
    option("beams with top-k", "--beam-width 2 --top-k 3", "top_k=3 has no meaning"),
    option("beams with a repetition penalty", "--beam-width 2 --repetition-penalty 1.2", "repetition_penalty=1.2"),
    option("beams with a stop text", "--beam-width 2 --stop x", "stop=", "has no meaning for a beam search"),
    prompt("beams without repeated n-grams", "the --beam-width 2 --no-repeat-ngram 2", '"log_probability"'),
    refused("an export for no tokens", "export {run} --max-new-tokens 0", "max_new_tokens=0 is not allowed"),
]
