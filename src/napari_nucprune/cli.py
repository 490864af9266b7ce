"""The command ``nucprune``: the same core as the dock, without a viewer."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from . import __version__
from .errors import InputError, NucpruneError, of_environment

#: Where each command lives; only the one that is asked for is imported.
MODULES = {
    "view": "view",
    "segment": "segment",
    "demo": "segment",
    "evaluate": "evaluate",
    "sweep": "sweep",
    "prune": "checkpoints",
    "info": "checkpoints",
    "convert": "convert",
    "train": "train",
    "bench": "bench",
}
#: Written down, so that --help loads nothing.
STRATEGIES = "layer-wise, network-wide, LAMP, ERK, random, 2:4 or 4:8"
RIVALS = (
    "torch, torch-channels-last, torch-compile, onnxruntime, openvino, openvino-bf16, deepsparse"
)
LAYOUTS = "monuseg|tnbc|nuinsseg|cryonuseg|consep|dsb2018|pairs"


class OneLine(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as all of us do, and not how everything is used."""

    def error(self, message: str) -> NoReturn:
        """Raise `InputError` instead of printing."""
        raise InputError(f"{message.rstrip('.')}; see {self.prog} --help.")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = OneLine(
        prog="nucprune",
        description="How far can a nuclei network be pruned before it fails, on this image?",
    )
    top.add_argument("--version", action="version", version=f"nucprune {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    view = commands.add_parser("view", help="the viewer with the dock")
    view.add_argument("image", nargs="?", metavar="IMAGE")

    segment = commands.add_parser("segment", help="nuclei of one image, with the pruned network")
    segment.add_argument("image", metavar="IMAGE")
    segment.add_argument("-o", "--output", required=True, metavar="DIR")
    _pruning(segment)
    _running(segment)
    segment.add_argument("--mpp", type=float, metavar="X", help="um a pixel of the image")
    segment.add_argument("--json", action="store_true", help="print run.json")
    _slide(segment)

    evaluate = commands.add_parser("evaluate", help="scores on annotated images")
    evaluate.add_argument("folder", metavar="FOLDER", help="of annotated images")
    _layout(evaluate)
    _pruning(evaluate, more="|each")
    _running(evaluate)
    evaluate.add_argument(
        "--json",
        metavar="FILE",
        help="write all scores, by image with its patient; where an image cannot be read, those "
        "until then ('complete': false)",
    )

    sweep = commands.add_parser("sweep", help="scores over compression ratios, and where they fail")
    sweep.add_argument("folder", metavar="FOLDER")
    _layout(sweep)
    sweep.add_argument("-o", "--output", required=True, metavar="DIR")
    group = sweep.add_argument_group("pruning")
    group.add_argument("--checkpoint", metavar="NAME|FILE", help="default: the bundled one")
    group.add_argument(
        "--strategy", metavar="S,...", help=f"of {STRATEGIES}; default layer-wise,network-wide"
    )
    group.add_argument("--cr", metavar="X,...", help="default 1,2,4,5,8,10,16,20,32,64")
    _keep_and_recover(group, "|each")
    sweep.add_argument("--loss", type=float, default=0.02, metavar="X", help="default 0.02, 2 %%")
    sweep.add_argument(
        "--bisect",
        action="store_true",
        help="look for the largest CR between the stops too (up to 15 more runs a strategy)",
    )
    sweep.add_argument(
        "--together", action="store_true", help="leave out the branches pruned by themselves"
    )
    _running(sweep)

    prune = commands.add_parser("prune", help="write a pruned checkpoint, or pack one as it is")
    prune.add_argument("checkpoint_in", metavar="CHECKPOINT")
    prune.add_argument("-o", "--output", required=True, metavar="FILE")
    _pruning(prune, checkpoint=False)
    prune.add_argument("--mpp", type=float, metavar="X", help="um a pixel, for plain state dicts")
    prune.add_argument(
        "--packed",
        action="store_true",
        help="write only the weights that are kept and where they lie; nothing is lost; without "
        "--cr the network is packed as it is",
    )
    prune.add_argument(
        "--fp16", action="store_true", help="packed, with the weights in half precision"
    )

    info = commands.add_parser("info", help="what a checkpoint is")
    info.add_argument("file", nargs="?", metavar="FILE")
    info.add_argument("--list", action="store_true", help="the bundled checkpoints")
    info.add_argument("--card", action="store_true", help="print its model card (Markdown)")

    convert = commands.add_parser(
        "convert", help="join two branches' weights (torch, Keras) into a checkpoint"
    )
    convert.add_argument("semantic", metavar="SEMANTIC")
    convert.add_argument("distance", nargs="?", metavar="DISTANCE")
    convert.add_argument("-o", "--output", metavar="FILE.safetensors")
    convert.add_argument("--mpp", type=float, metavar="X", help="um a pixel it was trained at")
    convert.add_argument("--map", metavar="FILE", help="JSON: which kernel is which layer")
    convert.add_argument("--keys", action="store_true", help="list the files' names and shapes")

    train = commands.add_parser("train", help="train both branches; goes on in DIR")
    train.add_argument("config", metavar="CONFIG.toml")
    train.add_argument("-o", "--output", required=True, metavar="DIR")
    train.add_argument("--from", dest="start", metavar="CHECKPOINT", help="start from its weights")
    train.add_argument("--seed", type=int, metavar="N")
    train.add_argument(
        "--fold", metavar="I/K", help="hold out the I-th of K parts of every set's patients"
    )
    train.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps")

    _bench(commands.add_parser("bench", help="the sparse kernels against dense runtimes, timed"))

    demo = commands.add_parser("demo", help="overlays of an image at CR 1, 5 and 16")
    demo.add_argument("image", nargs="?", metavar="IMAGE")
    demo.add_argument("--one-shot", action="store_true", help="without recovery")
    demo.add_argument("-o", "--output", default="nucprune-demo", metavar="DIR")
    return top


def _bench(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--checkpoint", metavar="NAME|FILE", help="a dense one; default: the bundled")
    sub.add_argument("--size", metavar="PX,...", help="of the square image; default 512")
    sub.add_argument("--cr", metavar="X,...", help="default 1,5,16,20,50")
    sub.add_argument("--strategy", metavar="S,...", help="default layer-wise,network-wide")
    sub.add_argument("--threads", metavar="N|all,...", help="default 1")
    sub.add_argument(
        "--branch",
        metavar="B,...",
        help="semantic (default), distance, or both: from new masks to maps",
    )
    sub.add_argument("--rivals", metavar="R,...", help=f"of {RIVALS}; all by default")
    sub.add_argument("--runs", type=int, default=15, metavar="N", help="default 15, interleaved")
    sub.add_argument("--full", action="store_true", help="the whole matrix: takes hours")
    sub.add_argument("--no-error", action="store_true", help="spare the float64 references")
    sub.add_argument("--cpu-time", action="store_true", help="of the process, on a busy machine")
    sub.add_argument("--json", metavar="FILE", help="write all rows")


def _layout(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--layout", required=True, metavar=LAYOUTS, help="how FOLDER is arranged")
    sub.add_argument(
        "--options",
        metavar="KEY=VALUE,...",
        help="of the layout: annotator=biologist-2 (cryonuseg), offset=0 (vertices as they stand)",
    )
    sub.add_argument(
        "--patients", metavar="P,...", help="only images of these, for a held-out set of a folder"
    )
    sub.add_argument("--mpp", type=float, metavar="X", help="um a pixel of the images")


def _pruning(sub: argparse.ArgumentParser, checkpoint: bool = True, more: str = "") -> None:
    group = sub.add_argument_group("pruning")
    if checkpoint:
        group.add_argument("--checkpoint", metavar="NAME|FILE", help="default: the bundled one")
    group.add_argument(
        "--strategy",
        metavar="S",
        help=f"{STRATEGIES}; layer-wise by default, 2:4 and 4:8 need no --cr",
    )
    group.add_argument("--cr", type=float, metavar="X", help="compression ratio of both branches")
    group.add_argument("--cr-semantic", type=float, metavar="X")
    group.add_argument("--cr-distance", type=float, metavar="X")
    _keep_and_recover(group, more)


def _keep_and_recover(group: argparse._ArgumentGroup, more: str = "") -> None:
    group.add_argument(
        "--keep",
        metavar="NAME,...",
        help="layers left dense (default: head; 'none' prunes the heads too)",
    )
    group.add_argument(
        "--recover",
        default="none",
        metavar=f"none|bundled|IMAGE|FOLDER{more}",
        help="refit the kept weights without labels, on bundled tissue or on your own"
        + (", or on every image's own" if more else ""),
    )
    group.add_argument(
        "--reselect",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with --recover: choose anew which weights of a layer stay (default), or do not",
    )


def _running(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--runtime", default="auto", choices=["auto", "torch", "sparse"])
    sub.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps")
    sub.add_argument("--tile", type=int, metavar="PX", help="side of a tile, a multiple of 16")
    sub.add_argument("--threads", type=int, metavar="N")


def _slide(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group(
        "whole slides",
        "What OpenSlide opens, what is too large for one piece, and any input with --tile; the "
        "same command continues what was cut off.",
    )
    group.add_argument(
        "--slide",
        action=argparse.BooleanOptionalAction,
        help="treat the input as a whole slide, or do not",
    )
    group.add_argument("--workers", type=int, metavar="N", help="processes (dask.distributed)")
    group.add_argument("--scheduler", metavar="ADDRESS", help="of a running dask cluster")
    group.add_argument("--table", default="csv", choices=["csv", "parquet"])
    group.add_argument("--gzip", action="store_true", help="nuclei.geojson.gz")
    group.add_argument(
        "--no-tissue-mask", dest="tissue_mask", action="store_false", help="run on glass too"
    )
    group.add_argument("--overwrite", action="store_true", help="replace what is in DIR")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 done, 2 wrong input, 3 stopped by the environment, 130 cancelled, 1 a fault of ours.
    """
    try:
        options = parser().parse_args(arguments)
        module = import_module(f".commands.{MODULES[options.command]}", __package__)
        getattr(module, options.command)(options)
        return 0
    except NucpruneError as error:
        print(f"nucprune: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("nucprune: cancelled.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("NUCPRUNE_DEBUG"):
            raise
        if stopped := of_environment(error):
            print(f"nucprune: {stopped}", file=sys.stderr)
            return stopped.exit_code
        print(
            f"nucprune: a fault of ours ({type(error).__name__}: {error}); "
            "please report it, with NUCPRUNE_DEBUG=1 for the traceback.",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
