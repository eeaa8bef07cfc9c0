"""The commands `generate` and `export`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cli.arguments import (
    MAX_TEXTS,
    add_encoding_argument,
    add_run_folder_argument,
    number,
    require_at_least_one,
    whole_number,
)
from pipeline.cli.settings_help import describe_sampling
from pipeline.cli.startup import start_tensorflow
from pipeline.config import MAX_NEW_TOKENS, CorpusConfig, sampling_parameters
from pipeline.notices import say
from pipeline.settings import RequestError, nearest, shortened

# Options beside those of `SamplingConfig`.
SEARCH_OPTIONS = {
    "beam_width": (whole_number, "search for the most likely text with this number of beams; 0: off, sample"),
    "length_penalty": (number, "of the beam search: scores are log P / ((5 + length) / 6) ** penalty (default: 1)"),
    "seed": (whole_number, "the same seed gives the same text (default: 0)"),
}
TOKENS_AT_A_TIME = 8  # of an interactive text, which is written as it is made
BOLD, PLAIN = "\033[1m", "\033[0m"


def add_generate_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `generate`; the sampling parameters come from `SamplingConfig`."""
    command.add_argument("source", metavar="RUN_OR_EXPORT", help="for example saved_models/kjv-words")
    command.add_argument(
        "prompts",
        nargs="*",
        default=[],
        metavar="PROMPT",
        help='texts to continue, for pairs: sources; "-": the lines of standard input (default: an empty text)',
    )
    command.add_argument(
        "--file", metavar="FILE", help="one prompt of several lines; a line end at its end is left out"
    )
    command.add_argument("--interactive", action="store_true", help="ask for one prompt after the other, until Ctrl-D")
    add_encoding_argument(command, "--file and of standard input")
    command.add_argument(
        "--samples",
        type=whole_number,
        default=1,
        metavar="N",
        help="texts for each prompt; with --beam-width the N best (default: 1)",
    )
    add_sampling_options(command)
    for name, (kind, text) in SEARCH_OPTIONS.items():
        _add_option(command, name, kind, text)
    command.add_argument(
        "--json", action="store_true", help="print one JSON object per line, with log-probability and token counts"
    )
    command.epilog = (
        "Options that are not given keep the settings of the run (sampling.*). After -- all words are prompts."
    )


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    """Adds an option for each sampling parameter of `SamplingConfig`."""
    for name, kind in sampling_parameters().items():
        _add_option(command, name, {int: whole_number, float: number}.get(kind), describe_sampling(name))


def generate(options: argparse.Namespace) -> None:
    """Continues prompts, or turns sources into targets, and prints the texts as they are made."""
    _refuse_two_ways(options)
    require_at_least_one("samples", options.samples)
    prompts = [] if options.interactive else _prompts(options)
    _refuse_too_many(options.samples, len(prompts))
    folder = run_or_export(options.source)
    start_tensorflow(share_cores=True)
    from pipeline.serving import generation

    names = [*sampling_parameters(), *SEARCH_OPTIONS]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    texts = generation.open_texts(folder)
    _check_samples(options, given.get("temperature", texts.settings.get("temperature")), "sample" in texts.functions)
    if options.interactive:
        _converse(texts, given, options.encoding or "auto")
    elif options.beam_width:
        _print_parts(generation.generate_in_parts(texts, prompts, n_best=options.samples, **given), texts, options)
    else:
        repeated = [prompt for prompt in prompts for _ in range(options.samples)]
        _print_parts(generation.generate_in_parts(texts, repeated, **given), texts, options)


def _print_parts(parts, texts, options: argparse.Namespace) -> None:
    made = []
    for part in parts:
        for result in part:
            # Texts may contain line ends, so an empty line separates them; targets are one line for each source.
            separates = made and texts.continues and not options.json
            print(("\n" if separates else "") + _shown(result, texts, options.json), flush=True)
            made.append(result._replace(text=""))
    _say_what_was_unusual(made, texts)


def _shown(result, texts, as_json: bool) -> str:
    if as_json:
        fields = {name: value for name, value in result._asdict().items() if value is not None}
        return json.dumps(fields, ensure_ascii=False)
    if not texts.continues:
        return " ".join(result.text.splitlines())
    prompt = result.prompt.removeprefix("\ufeff").replace("\r\n", "\n")
    return f"{BOLD}{prompt}{PLAIN}{result.text}" if _has_colours() else prompt + result.text


def _has_colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _say_what_was_unusual(made, texts) -> None:
    """Says which prompts the model could hardly read, and which targets were cut."""
    say_what_is_unknown("prompt", [(each.prompt, each.prompt_tokens or 0, each.prompt_unknown or 0) for each in made])
    cut = sum(result.ended is False for result in made)
    if cut and not texts.continues:
        say(
            f"{cut} of {len(made)} texts did not end by themselves: they were cut at the limit of their tokens. Set "
            "--max-new-tokens; or sampling.max_length_ratio, by the command that trained the run, and export it again."
        )


def say_what_is_unknown(name: str, texts: Sequence[tuple[str, int, int]]) -> None:
    """Says of how many texts the model knows less than a half.

    Args:
        name: what these texts are called.
        texts: each text, how many tokens it has, and how many of them are unknown.
    """
    unread = [each for each in texts if 2 * each[2] > each[1]]
    if unread:
        text, tokens, unknown = unread[0]
        count = f"{len(unread)} of {len(texts)} {name}s are" if len(texts) > 1 else f"The {name} is"
        say(
            f"{count} mostly unknown to the model: of {shortened(text, 40)!r} it knows {tokens - unknown} of {tokens} "
            "tokens. Its training text did not contain them, or too rarely (tokenizer.min_count, "
            "tokenizer.max_vocabulary_size)."
        )


def _typed(encoding: str) -> Iterator[str]:
    """Yields one prompt after the other, from the terminal or line by line from standard input."""
    if not sys.stdin.isatty():
        for line in sys.stdin.buffer:
            yield from _lines(line, encoding)
        return
    say("A prompt, then Enter; Ctrl-D ends.")
    while True:
        try:
            yield without_surrogates(input("> "))
        except EOFError:
            return


def _converse(texts, given, encoding: str) -> None:
    """Answers one prompt after the other, token by token where the text continues it."""
    from pipeline.serving import generation

    for turn, prompt in enumerate(_typed(encoding)):
        options = given | {"seed": generation.row_seed(given.get("seed", 0), turn)}
        if not texts.continues or options.get("beam_width"):
            print(generation.generate(texts, [prompt], **options)[0].text, flush=True)
            continue
        print(f"{BOLD}{prompt}{PLAIN}" if _has_colours() else prompt, end="", flush=True)
        for text in _pieces(texts, prompt, options):
            print(text, end="", flush=True)
        print("\n", flush=True)


def _pieces(texts, prompt: str, options):
    """Yields a continuation a few tokens at a time; each time the model reads what there is already."""
    from pipeline.serving import generation

    seed, left = options["seed"], options.get("max_new_tokens", texts.settings.get("max_new_tokens", 0))
    least = options.get("min_new_tokens", texts.settings.get("min_new_tokens", 0))
    for turn in itertools.count():
        size = min(TOKENS_AT_A_TIME, left)
        limits = {"max_new_tokens": size, "min_new_tokens": min(size, max(0, least))}
        settings = options | limits | {"seed": generation.row_seed(seed, turn)}
        [made] = generation.generate(texts, [prompt], **settings)
        yield made.text
        left, least, prompt = left - size, least - size, prompt + made.text
        if left <= 0 or made.tokens < size or made.ended:
            return


def add_export_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `export`."""
    add_run_folder_argument(command)
    command.add_argument(
        "--version", type=whole_number, metavar="N", help="version number (default: one more than the highest)"
    )
    command.add_argument(
        "--max-new-tokens",
        type=whole_number,
        metavar="N",
        help=f"the most new tokens that a request may ask for (default: {MAX_NEW_TOKENS})",
    )


def export(options: argparse.Namespace) -> None:
    """Writes a run as a SavedModel and prints its folder."""
    start_tensorflow()
    from pipeline.run import load
    from pipeline.serving import export

    print(export.export(load(options.folder), options.version, options.max_new_tokens))


def _add_option(command: argparse.ArgumentParser, name: str, kind, text: str) -> None:
    option = "--" + name.replace("_", "-")
    if kind is None:
        text = f"{text}; \\n is a line end; may be repeated"
        command.add_argument(option, type=_unescaped, action="append", metavar="TEXT", help=text)
    else:
        command.add_argument(option, type=kind, metavar="N" if kind is whole_number else "X", help=text)


def _unescaped(text: str) -> str:
    """Returns an option's text, in which a line end or a tab is hard to type.

    >>> _unescaped("one\\\\n")
    'one\\n'
    """
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _prompts(options: argparse.Namespace) -> list[str]:
    """Returns the prompts of the command line, of a file, or of standard input."""
    if options.file is not None:
        return [_read_prompt(options.file, options.encoding or "auto")]
    if options.prompts == ["-"]:
        return _lines(sys.stdin.buffer.read(), options.encoding or "auto")
    return [without_surrogates(word) for word in options.prompts] or [""]


def _read_prompt(file: str, encoding: str) -> str:
    from pipeline.data.encodings import decode

    path = Path(file)
    if not path.is_file():
        raise RequestError(f"{file} does not exist in or from {Path.cwd()}, or is no file: name a text file.")
    return _without_line_end("".join(decode(path, CorpusConfig(encoding=encoding))))


def read_lines(file: Path) -> list[str]:
    """Returns the lines of a text file that are not blank."""
    return [line for line in _read_prompt(str(file), "auto").splitlines() if line.strip()]


def _lines(content: bytes, encoding: str) -> list[str]:
    """Returns the lines of standard input."""
    from pipeline.data.encodings import decode_bytes

    text = decode_bytes(content, "Standard input", encoding)
    return [line.removesuffix("\r") for line in _without_line_end(text).split("\n")] if text else []


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def without_surrogates(word: str) -> str:
    """Returns a word of the command line or the terminal; bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(word).decode("utf-8", "replace")


def _refuse_two_ways(options: argparse.Namespace) -> None:
    """Refuses prompts that come in two ways, and options that would have no effect."""
    ways = {"PROMPT": options.prompts, "--file": options.file is not None, "--interactive": options.interactive}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise RequestError(f"{' and '.join(given)} are two ways to give prompts: leave one out.")
    if options.encoding is not None and not (options.file or options.interactive or options.prompts == ["-"]):
        raise RequestError("--encoding is that of --file or of standard input: prompts on the command line have none.")
    if options.interactive and (options.samples > 1 or options.json):
        raise RequestError("--interactive writes one text for each prompt: leave out --samples and --json.")


def _check_samples(options: argparse.Namespace, temperature: float | None, has_codes: bool) -> None:
    """Refuses several samples that would all be the same, and more than the beams find."""
    if options.beam_width and options.samples > options.beam_width:
        raise RequestError(
            f"samples={options.samples} is more than beam_width={options.beam_width}: that many beams find at most as "
            "many texts. Set a larger --beam-width, up to 8, or fewer --samples."
        )
    # From a latent code, which each row draws, the likeliest tokens differ.
    if options.samples > 1 and not options.beam_width and temperature == 0 and not has_codes:
        raise RequestError(
            f"samples={options.samples} with temperature=0, which takes the most likely token, would be the same text "
            f"{options.samples} times: set a higher --temperature, or --beam-width for the best {options.samples}."
        )


def _refuse_too_many(samples: int, prompts: int) -> None:
    """Refuses more texts than fit in memory, before a list of that length is made."""
    if prompts > MAX_TEXTS:
        raise RequestError(f"{prompts:,} prompts are too many for one command: give at most {MAX_TEXTS:,} at a time.")
    if samples * prompts > MAX_TEXTS:
        raise RequestError(
            f"samples={samples} is not allowed with {prompts:,} prompts: one command makes at most {MAX_TEXTS:,} "
            f"texts. Set --samples {MAX_TEXTS // prompts} or fewer, and repeat the command with another --seed."
        )


def run_or_export(path: str) -> Path:
    """Finds a run or an export by its path; the folder `export` stands for its newest version."""
    folder = Path(path)
    versions = [
        (int(found.name), found)
        for found in folder.glob("*")
        if found.name.isdecimal() and (found / "saved_model.pb").exists()
    ]
    if versions:
        return max(versions)[1]
    if (folder / "saved_model.pb").exists() or (folder / "config.json").exists():
        return folder
    siblings = [found.parent.name for found in folder.parent.glob("*/config.json")]
    hint = nearest(folder.name, siblings) if siblings else "none yet; `python -m pipeline train PRESET` makes one"
    raise RequestError(f"{path} is neither a run nor an export. Runs in {folder.parent}: {hint}.")
