"""The command `quality`: quality against diversity of what runs generate, at several temperatures."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.atomic_files import atomic_write
from pipeline.cli.arguments import MAX_TEXTS, number, whole_number
from pipeline.cli.startup import start_tensorflow
from pipeline.settings import RequestError, require_count

PLOT_FORMATS = (".pdf", ".png", ".svg")


def add_quality_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of `quality`."""
    command.add_argument("folders", nargs="+", metavar="RUN", help="folders of runs of one corpus of sentences")
    command.add_argument(
        "--temperatures",
        nargs="+",
        type=number,
        default=[1.0],
        metavar="X",
        help="each run is drawn at each of them (default: 1.0)",
    )
    command.add_argument(
        "--samples",
        type=whole_number,
        default=10_000,
        metavar="N",
        help="texts for each run and temperature (default: 10,000)",
    )
    command.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="the same seed gives the same texts (default: 0)"
    )
    command.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="compare with these sentences, not with the test text"
    )
    command.add_argument(
        "--split", default="test", choices=("test", "validation"), help="part of the runs' own text (default: test)"
    )
    command.add_argument("--output", metavar="FILE", help="also write the figures there, as JSON")
    command.add_argument("--plot", metavar="FILE", help="also draw quality over diversity: .png, .svg or .pdf")
    command.epilog = (
        "Texts are compared word by word: \\w+ or one other character that is no white space, whatever a run's tokens "
        "are. All settings of sampling but the temperature are each run's own."
    )


def quality(options: argparse.Namespace) -> None:
    """Prints a table of quality and diversity, with a row for real text, and says which rows no other beats."""
    require_count("samples", options.samples, MAX_TEXTS)
    output, plot = (_place(name, getattr(options, name)) for name in ("output", "plot"))
    if plot and plot.suffix.lower() not in PLOT_FORMATS:
        raise RequestError(
            f"--plot {plot} cannot be drawn: a name must end in {', '.join(PLOT_FORMATS)}, not in {plot.suffix!r}. "
            f"Name it {plot.with_suffix('.png')}."
        )
    start_tensorflow(share_cores=True)
    from pipeline.evaluation import quality_plot, quality_report
    from pipeline.run import load, write_json
    from pipeline.serving import quality

    rows = quality.quality(
        [load(folder) for folder in options.folders],
        options.temperatures,
        options.samples,
        options.seed,
        options.data,
        options.split,
    )
    print(quality_report.table(rows))
    print(quality_report.verdict(rows))
    if output:
        write_json(output, {"rows": rows, "verdict": quality_report.verdict(rows)})
    if plot:
        with atomic_write(plot) as aside:
            quality_plot.plot(rows).savefig(aside, dpi=150, format=plot.suffix[1:].lower())


def _place(option: str, name: str | None) -> Path | None:
    """Returns where a file is to be written, before hours of work are lost on a folder that is not there."""
    if name is None:
        return None
    path = Path(name)
    if not path.name or path.is_dir():
        raise RequestError(f"--{option} {name} is a folder: name a file in it.")
    if not path.parent.is_dir():
        raise RequestError(f"--{option} {name} cannot be written: there is no folder {path.parent}. Make it first.")
    return path
