"""Write a configuration for a folder of images and annotations, for this machine, with the reason beside each value.

python tools/new_config.py data/parts --output configs/parts.yaml

Exit code 1 if the data has errors; the file is written all the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, printable, run_tool
from engine.files import user_path
from engine.shipped import command_line


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "data", type=user_path, metavar="DATA", help="folder with annotations in any format that is known, or one file"
    )
    parser.add_argument(
        "--output", type=user_path, metavar="F", help="the YAML file to write (configs/ and the name of DATA)"
    )
    parser.add_argument(
        "--images",
        type=user_path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of the images, with the folders in it, if they are not in DATA; may be given several times",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="how long training and test may take (on a CPU 10; on a GPU as long as the data needs)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="", help="the one to train on (a GPU if any)")
    parser.add_argument(
        "--val-share", type=float, default=0.2, metavar="S", help="set aside for testing if nothing says which (0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="for the choice of these images (0)")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    args = parser.parse_args(arguments)
    if args.minutes is not None and not 0 < args.minutes < 1e6:
        parser.error("--minutes must be positive")
    if not 0 < args.val_share < 1:
        parser.error("--val-share must be between 0 and 1")
    if args.seed < 0:
        parser.error("--seed must not be negative")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse_args(arguments)
    output = args.output or Path("configs", f"{args.data.absolute().resolve().stem or 'data'}.yaml")
    if output.exists() and not args.force:
        raise InputError(f"{output}: exists; choose another --output, or replace it with --force")
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"{output}: must be named .yaml")

    from engine.assembly.new_config import new_config
    from engine.assembly.new_settings import Request
    from engine.log import setup_logging

    setup_logging()

    request = Request(args.data, tuple(args.images), output, args.minutes, args.device, args.val_share, args.seed)
    written = new_config(request)
    print("\n".join(map(printable, written.notes)))
    for each in written.findings:
        where = f" {each.dataset}:" * bool(each.dataset)
        print(printable(f"{each.severity}:{where} {each.message} ({each.code})"))
    print(f"\nwritten: {output}, with the reason beside each value\ntrain and test with\n\n    {written.command}\n")
    if written.has_errors:
        check = command_line("tools/check_dataset.py", "check")
        print(f"before that, correct the errors; {check} --config-file {output} says how\n")
    return int(written.has_errors)


if __name__ == "__main__":
    run_tool(main)
