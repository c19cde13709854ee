r"""Turn annotated images of any published form into a data set to train on.

Every image is checked and written as <out>/<split>/{images,instances,types}/NAME.png, with dataset.json, index.csv
(resolution and patient per image), splits.csv, report.md, report.json and sheet.png, a contact sheet to look at. What
can't be used is named and left out, and the rest goes on.

  python -m train.prepare --in "MoNuSeg 2018 Training Data" --out data/monuseg
  python -m train.prepare --in pannuke --out data/pannuke --classes train/configs/classes.toml
  python -m train.prepare --in my_reviews --out data/mine --group "(case\d+)"
  python -m train.prepare --in more_tiles --out data/unlabelled --unlabelled --mpp 0.25

The exit code is 0 when all went well, 1 when some images or files were left out, 2 when nothing could be done.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp
from train.checks import check, doubtful_size, duplicates
from train.class_map import ClassMap, ClassMapError, OpenClasses
from train.config import describe, load_config, to_mapping
from train.prepare_report import Report, lacking, unreviewed
from train.prepared import SetWriter
from train.readers import FORMATS, UNLABELLED, ReadOptions, Source, open_source
from train.sheet import draw_sheet
from train.splits import Plan, SplitConfig, plan


@dataclass(frozen=True)
class PrepareConfig:
    """Everything that `train.prepare` can be told.

    Parameters
    ----------
    source : Path
        The data set: a folder, or one annotation file.
    out : Path
        New folder for the result.
    format : str
        Of the source; found out where it isn't given, except for "unlabelled", images alone.
    classes : Path
        Class map (TOML); without one every class stays itself.
    mpp : float
        Micrometres per pixel of all images; overrides what the source says.
    nuclei : str
        Of review sessions: "all", or "reviewed" ones only, the others being background. Images most of whose nuclei
        would be that are left out.
    limit : int
        Only so many images, evenly spread; 0 takes all.
    sheet : int
        Images on the contact sheet; 0 draws none.
    split : SplitConfig
        How images are divided. Of those without labels none is held out, since they can't validate.
    """

    source: Path | None = None
    out: Path | None = None
    format: str | None = None
    classes: Path | None = None
    mpp: float | None = None
    nuclei: str = "all"
    limit: int = 0
    sheet: int = 24
    split: SplitConfig = field(default_factory=SplitConfig)


def prepare(config: PrepareConfig) -> Report:
    """Convert a data set.

    Parameters
    ----------
    config
        `source` and `out` must be given.

    Returns
    -------
    Report
        Also written to the folder, with a contact sheet.

    Raises
    ------
    NucSegError
        Nothing can be done: the source isn't recognised, the class map doesn't fit, or `out` isn't empty.
    """
    if config.source is None or config.out is None:
        raise NucSegError(f"{'--in' if config.source is None else '--out'} is missing; give a folder.")
    mpp = None if config.mpp is None else Mpp.stated(config.mpp).value
    source = _limited(open_source(config.source, config.format, ReadOptions(config.nuclei)), config.limit)
    classes = ClassMap.load(config.classes) if config.classes else OpenClasses(source.classes or ())
    if isinstance(classes, ClassMap):
        _check_classes(source, classes)
    shares = config.split if source.labelled else replace(config.split, val_fraction=0.0, test_fraction=0.0)
    places = plan(source.entries, shares)
    writer = SetWriter(config.out)
    failures = [*source.problems, *_convert(source, classes, places, mpp, writer)]
    if not writer.rows:
        writer.abandon()
        raise NucSegError(_nothing(failures))
    merges = {} if config.classes else dict(source.merges)
    writer.finish(source, classes.classes, merges)
    twins = duplicates([(row.name, row.split, row.digest) for row in writer.rows])
    sizes = doubtful_size([(row.nuclei, row.diameter_um, row.mpp) for row in writer.rows])
    gaps = lacking(writer.rows, classes.classes)
    remarks = (*source.remarks, *places.remarks, *unreviewed(writer.rows), *twins, *sizes, *gaps)
    report = Report(
        str(config.source), source.format, to_mapping(config), tuple(writer.rows), classes.classes,
        tuple(failures), remarks,
    )  # fmt: skip
    report.write(config.out)
    if config.sheet > 0:
        draw_sheet(config.out, writer.rows, classes.classes, config.out / "sheet.png", config.sheet)
    return report


def _check_classes(source: Source, classes: ClassMap) -> None:
    """Raise `ClassMapError` for what the map lacks, before hours of work, even where only the images tell it."""
    seen: dict[str, str | None] = dict.fromkeys(source.classes or ())
    if source.classes is None:
        for entry in tqdm(source.entries, "classes", unit="image", file=sys.stderr, disable=None):
            try:
                seen = dict.fromkeys(source.read(entry).classes, entry.where) | seen
            except (NucSegError, OSError, MemoryError):
                continue  # told when it is to be converted
    classes.check(seen, source.format)


def _convert(
    source: Source, classes: ClassMap | OpenClasses, places: Plan, mpp: float | None, writer: SetWriter
) -> list[str]:
    """Read, check and write image by image; return a sentence for each that had to be left out."""
    failures = []
    for entry in tqdm(source.entries, writer.folder.name, unit="image", file=sys.stderr, disable=None):
        try:
            item = check(source.read(entry), classes, mpp, entry.where, source.format)
        except ClassMapError:
            raise
        except NucSegError as error:
            failures.append(str(error))
        except (OSError, MemoryError) as error:
            failures.append(
                f"'{entry.where}' can't be read ({error or 'out of memory'}); see whether it is whole."
            )
        else:
            writer.add(entry, places.splits[entry.name], places.groups[entry.name], item)
    return failures


def _limited(source: Source, limit: int) -> Source:
    """Return a source of at most `limit` entries, evenly spread; all for 0."""
    if limit < 0:
        raise NucSegError(f"limit={limit} is no number of images; it must be at least 1, or 0 for all.")
    n = len(source.entries)
    if not 0 < limit < n:
        return source
    return replace(source, entries=tuple(source.entries[i * n // limit] for i in range(limit)))


def _nothing(failures: Sequence[str]) -> str:
    more = f" {len(failures) - 1:,} more can't be taken either." if len(failures) > 1 else ""
    return f"No image could be taken. {failures[0]}{more}"


def _parser() -> argparse.ArgumentParser:
    formats = "\n".join(f"  {name:10} {form.what}" for name, form in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="python -m train.prepare",
        description=__doc__,
        epilog=f"formats:\n{formats}\n\nclass maps: docs/training.md has the form, train/configs/classes.toml all "
        "published sets."
        f"\n\nkeys of the config, with their defaults:\n{describe(PrepareConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE.toml", help="configuration; options and key=value override it")
    add("--in", dest="source", type=Path, metavar="PATH", help="the data set: folder or annotation file")
    add("--out", type=Path, metavar="DIR", help="new folder for the result")
    add("--format", metavar="NAME", help="of the source, where it can't be recognised (see below)")
    add(
        "--unlabelled", dest="format", action="store_const", const=UNLABELLED,
        help="images that nobody annotated, for train.distill; same as --format unlabelled",
    )  # fmt: skip
    add("--classes", type=Path, metavar="MAP.toml", help="class map: target classes and their source names")
    add("--mpp", type=float, help="micrometres per pixel of all images; overrides what the source says")
    add(
        "--nuclei", choices=("all", "reviewed"),
        help="of review sessions: all, or only those that a person has dealt with, the others being background (all)",
    )  # fmt: skip
    add("--limit", type=int, metavar="N", help="only N images, evenly spread")
    add("--sheet", type=int, metavar="N", help="images on the contact sheet; 0 for none (24)")
    add("--val-fraction", type=float, metavar="F", help="share to hold out for validation (0.15)")
    add("--test-fraction", type=float, metavar="F", help="share to hold out for the test (0)")
    add("--group", dest="pattern", metavar="REGEX", help="finds the patient in a name (TCGA barcodes)")
    add("--split", dest="default", choices=("train", "val", "test"), help="of images that state none (train)")
    add("--seed", type=int, help="of the division (0)")
    add("overrides", nargs="*", metavar="key.sub=value", help="any other key of the configuration")
    return parser


def configure(arguments: Sequence[str]) -> PrepareConfig:
    """Return the configuration that a command line asks for."""
    parser = _parser()
    known, unknown = parser.parse_known_intermixed_args(arguments)
    given = vars(known)
    if unknown:
        option = unknown[0].partition("=")[0]
        options = re.findall(r"--[\w-]+", parser.format_usage())
        near = difflib.get_close_matches(option.replace("_", "-"), options, 1)
        raise NucSegError(f"'{option}' is no option; {f'did you mean {near[0]}?' if near else 'see --help.'}")
    config = load_config(PrepareConfig, given.pop("config", None), given.pop("overrides", []), "prepare")
    inner = {k: given.pop(k) for k in tuple(given) if k in SplitConfig.__dataclass_fields__}
    return replace(config, **given, split=replace(config.split, **inner))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m train.prepare``."""
    try:
        config = configure(sys.argv[1:] if argv is None else argv)
        report = prepare(config)
    except NucSegError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"The data set can't be written ({error}); free space or choose another --out.", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print(
            "Stopped: the folder has no dataset.json and is incomplete; empty it and begin again.",
            file=sys.stderr,
        )
        return 130
    for line in (*report.remarks, *report.failures):
        print(line, file=sys.stderr)
    print(f"{report.summary()}\nReport: {config.out}/report.md")
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
