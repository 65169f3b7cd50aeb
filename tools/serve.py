"""Detect over HTTP: images in, boxes out, and a page to try it on.

python tools/serve.py --config-file F --weights outputs/mine/model_final.pth --port 8000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import expanded, user_path
from engine.serve.limits import MEGABYTE, Limits

Number = TypeVar("Number", int, float)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Detect over HTTP: images in, boxes out, and a page to try it on.",
        epilog="Clients must send the key in the variable ENGINE_API_KEY, if it is set.",
    )
    parser.add_argument(
        "--config-file", type=user_path, metavar="F", help="YAML configuration; optional with an exported file"
    )
    parser.add_argument("--weights", required=True, type=expanded, metavar="W", help="checkpoint or exported file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all (127.0.0.1)")
    parser.add_argument("--port", type=_integer(0, 65535), default=8000, help="0: any free one (8000)")
    parser.add_argument(
        "--workers", type=_integer(1, 256), default=1, metavar="N", help="processes, each with a model (1)"
    )
    parser.add_argument(
        "--threads", type=_integer(1, 1024), metavar="N", help="that each worker computes with (its share of the CPUs)"
    )
    parser.add_argument("--device", metavar="D", help="MODEL.DEVICE: cpu, cuda, cuda:1")
    _add_limits(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_args()


def _add_limits(parser: argparse.ArgumentParser) -> None:
    own = Limits()
    add = parser.add_argument_group("limits of each worker").add_argument
    add("--max-batch", type=_integer(1, 1024), default=own.max_batch, metavar="N", help="images at once (%(default)s)")
    add(
        "--max-delay-ms",
        type=_number(0, 10_000),
        default=1000 * own.max_delay,
        metavar="T",
        help="milliseconds that an image waits for others (%(default)g)",
    )
    add(
        "--max-queue",
        type=_integer(1, 100_000),
        default=own.max_queue,
        metavar="N",
        help="images accepted and not yet answered (%(default)s)",
    )
    add(
        "--max-megabytes",
        type=_number(0.001, 10_000),
        default=own.max_bytes / MEGABYTE,
        metavar="N",
        help="of a request (%(default)g)",
    )
    add(
        "--max-pixels", type=_integer(1, 1 << 30), default=own.max_pixels, metavar="N", help="of an image (%(default)s)"
    )
    add(
        "--max-connections",
        type=_integer(1, 100_000),
        default=own.max_connections,
        metavar="N",
        help="open at a time (%(default)s)",
    )
    add(
        "--timeout",
        type=_number(0.1, 3600),
        default=own.timeout,
        metavar="S",
        help="seconds for a body to arrive, for its answer, and for accepted requests when stopping (%(default)g)",
    )


def _integer(least: int, most: int) -> Callable[[str], int]:
    return _bounded(int, "whole number", least, most)


def _number(least: float, most: float) -> Callable[[str], float]:
    return _bounded(float, "number", least, most)


def _bounded(kind: Callable[[str], Number], name: str, least: float, most: float) -> Callable[[str], Number]:
    def convert(text: str) -> Number:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be between {least:g} and {most:g}, not {text}")
        return value

    convert.__name__ = name  # for argparse's message
    return convert


def main() -> int:
    args = parse_args()
    from engine.assembly.run_config import run_config

    device = ["MODEL.DEVICE", args.device] if args.device else []
    keys = [*args.opts, *device, "TEST.IMS_PER_BATCH", str(args.max_batch)]
    cfg = run_config(args.config_file, args.weights, keys)

    from engine.assembly.serving import serve

    limits = Limits(
        max_batch=args.max_batch,
        max_delay=args.max_delay_ms / 1000,
        max_queue=args.max_queue,
        max_bytes=int(args.max_megabytes * MEGABYTE),
        max_pixels=args.max_pixels,
        max_connections=args.max_connections,
        timeout=args.timeout,
    )
    return serve(cfg, args.weights, args.host, args.port, limits, args.workers, args.threads or 0)


if __name__ == "__main__":
    run_tool(main)
