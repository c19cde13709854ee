"""The command ``napari-nucseg``: segment images, list models, look at the installation, try a demo.

Exit codes: 0 all done, 1 some images were not, 2 the request cannot be done as it stands.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg import __version__
from napari_nucseg.errors import NucSegError
from napari_nucseg.interrupt import terminable
from napari_nucseg.models.devices import DEVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucseg.models.registry import Model

EXAMPLES = """\
examples:
  napari-nucseg segment slide.svs -o results
      every nucleus of a slide whose file states its resolution
  napari-nucseg segment tile.png -o results --mpp 0.25
      a picture without resolution: 0.25 um per pixel is a 40x scan, 0.5 a 20x scan
  napari-nucseg segment scans/ -o results --format csv --skip-existing
      all images of a folder, only their tables; images done in an earlier run are left out
  napari-nucseg segment slides/ -o results --resume --scheduler tcp://head:8786
      all slides of a folder on a Dask cluster; what is complete is not done again
  napari-nucseg demo
      open napari with a sample image and the NucSeg panel
  napari-nucseg doctor
      what is installed, which device would be used, what is missing
"""

SEGMENT_HELP = """\
Segment and classify every nucleus of H&E images. For each image the folder given with -o receives

  <name>_instances.tif   one number per nucleus in every pixel, 0 between them (uint32)
  <name>_labels.zarr     the same as an OME-Zarr pyramid, for whole slides
  <name>_nuclei.csv      one row per nucleus: position, class, probabilities, size, shape, stain
  <name>_nuclei.parquet  the same as Parquet, for many nuclei
  <name>_nuclei.geojson  outlines for QuPath (drag the file onto the image there)
  <name>_summary.json    area covered, nuclei per mm2, what failed, seconds, versions

as far as --format asks for them; <name>_tissue.png shows where a slide was searched.
"""

SEGMENT_NOTES = """\
The resolution is read from the file (OME-XML, Aperio header, resolution tags); where the file is silent it must be
stated with --mpp, since nuclei cannot be told from debris at an unknown size.

A run that was stopped or killed goes on where it was when the same command is given again: finished tiles lie in
<name>.nucseg-partial until all results are in place.

exit codes: 0 all images done; 1 some were not, each told in a sentence; 2 nothing could be done as asked
"""


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="napari-nucseg",
        description="Segment, classify and review every nucleus of an H&E image.",
        epilog=EXAMPLES,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"napari-nucseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_segment(
        commands.add_parser(
            "segment",
            help="segment images into labels, a table and outlines",
            description=SEGMENT_HELP,
            epilog=SEGMENT_NOTES,
            formatter_class=formatter,
        )
    )
    models = commands.add_parser("models", help="list the models with their classes, resolution and licence")
    models.add_argument("--json", action="store_true", help="print JSON for other programs")
    models.set_defaults(run=_models)
    doctor = commands.add_parser("doctor", help="print versions, devices, runtimes, and what is missing")
    doctor.set_defaults(run=_doctor)
    demo = commands.add_parser(
        "demo",
        help="open napari with a sample image and the NucSeg panel",
        description="Open napari with an H&E image and the NucSeg panel. Without a display or without napari the "
        "image is segmented into ./nucseg-demo instead (files of an earlier demo there are replaced).",
    )
    demo.add_argument(
        "image", metavar="IMAGE", nargs="?", type=Path, help="your own image (default: a synthetic one)"
    )
    demo.add_argument("--mpp", metavar="M", help="micrometres per pixel, where the file does not say")
    demo.set_defaults(run=_demo)
    for command in (models, doctor, demo):
        _add_verbose(command)
    return parser


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of images")
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--mpp", metavar="M", help="micrometres per pixel of all the images (default: their own)"
    )
    parser.add_argument("--model", metavar="NAME|PATH", default="default", help="see `napari-nucseg models`")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="default: auto, the fastest there is (see `doctor`)"
    )
    parser.add_argument(
        "--format",
        metavar="LIST",
        default="auto",
        help="what to write, some of tif,csv,geojson,zarr,parquet (default: tif,csv,geojson, but of slides above 50 "
        "megapixels zarr,csv,parquet,geojson)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.set_defaults(existing="refuse")
    for name, what in (
        ("overwrite", "replace results that exist"),
        ("skip-existing", "leave out images with results"),
        ("resume", "do only what is missing or failed, and leave out what is complete"),
    ):
        flag, name = f"--{name}", name.partition("-")[0]
        existing.add_argument(flag, dest="existing", action="store_const", const=name, help=what)
    parser.add_argument(
        "--no-tissue", dest="tissue", action="store_false", help="segment glass too, instead of tissue alone"
    )
    parser.add_argument(
        "--tile", metavar="N", type=int, help="side of a tile in pixels; smaller ones need less memory"
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS|local[:N]",
        help="spread the work over a Dask cluster (tcp://host:port), or over N processes here",
    )
    _add_verbose(parser)
    parser.set_defaults(run=_segment)


def _add_verbose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens, and trace errors")


def _say(line: str) -> None:
    print(line, flush=True)


def _warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _segment(args: argparse.Namespace) -> int:
    from napari_nucseg._cli.batch import Job, segment_all

    job = Job(
        tuple(args.images),
        args.out,
        args.mpp,
        args.model,
        args.device,
        args.format,
        args.existing,
        args.tissue,
        args.tile,
        args.scheduler,
    )
    with terminable():
        return segment_all(job, _say, _warn, args.verbose)


def _models(args: argparse.Namespace) -> int:
    from napari_nucseg.models.registry import DEFAULT, available, user_models

    models = list(available().values())
    if args.json:
        _say(json.dumps([_as_dict(m, m.name == DEFAULT) for m in models], indent=2, ensure_ascii=False))
        return 0
    if not models:
        raise NucSegError(
            f"No model is installed; install napari-nucseg again, or put one into '{user_models()}'."
        )
    head = ("", "name", "version", "um/px", "classes", "licence of the weights")
    rows = [
        ("*" if m.name == DEFAULT else "", m.name, m.card.version, f"{m.card.mpp:g}", ", ".join(m.card.classes),
         m.card.licence)
        for m in models
    ]  # fmt: skip
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    for row, model in zip((head, *rows), (None, *models), strict=True):
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if model is not None and model.card.caution:
            _say(f"{'':{widths[0] + 2}}caution: {model.card.caution}")
    _say(f"* = the default. Models of your own go to {user_models()}")
    return 0


def _as_dict(model: Model, default: bool) -> dict[str, Any]:
    card = model.card
    return {
        "name": card.name,
        "version": card.version,
        "title": card.title,
        "default": default,
        "classes": list(card.classes),
        "mpp": card.mpp,
        "licence": card.licence,
        "caution": card.caution,
        "weaknesses": list(card.weaknesses),
        "weights": str(model.weights),
    }


def _doctor(args: argparse.Namespace) -> int:
    from napari_nucseg.doctor import examine

    report = examine()
    for line in report.lines:
        _say(line)
    return 0 if report.usable else 1


def _demo(args: argparse.Namespace) -> int:
    from napari_nucseg._cli.sample import FOLDER, headless_demo, why_no_window
    from napari_nucseg.io.slide import Mpp

    mpp = None if args.mpp is None else Mpp.stated(args.mpp)
    reason = why_no_window()
    if reason is None:
        opener = importlib.import_module("napari_nucseg._plugin.demo")
        opener.open_demo(args.image, None if mpp is None else mpp.value)
        return 0
    _say(f"No window: {reason}. The sample is segmented without one.")
    headless_demo(args.image, mpp, FOLDER, _say)
    return 0


def _set_up(verbose: bool) -> None:
    """Keep what libraries say to themselves, unless asked; print any character on any terminal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    handler = logging.StreamHandler(sys.stderr)
    if not verbose:
        handler.addFilter(logging.Filter("napari_nucseg"))
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    if not verbose:
        warnings.simplefilter("ignore")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; default those of the process.

    Returns
    -------
    int
        The exit code; argparse exits by itself for --help, --version (0) and wrong usage (2).
    """
    args = _parser().parse_args(argv)
    _set_up(args.verbose)
    try:
        code: int = args.run(args)
        return code
    except NucSegError as error:
        _warn(f"napari-nucseg: {error}")
        return 2
    except KeyboardInterrupt:
        _warn(
            "napari-nucseg: stopped; no file is half written, and the same command goes on where it was (with --resume "
            "if some images are complete)."
        )
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        hint = "" if args.verbose else "; run with -v for the details"
        reason = str(error).partition("\n")[0]
        _warn(f"napari-nucseg: {type(error).__name__}: {reason}{hint}")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
