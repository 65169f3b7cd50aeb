"""Print the configuration that a run would use, or the meaning of its keys.

python tools/print_config.py --config-file F SOLVER.BASE_LR 0.02
python tools/print_config.py --config-file F --diff
python tools/print_config.py --doc SOLVER.EMA
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=f"{summary} The output is YAML that can be loaded again.")
    parser.add_argument("--config-file", type=user_path, metavar="F", help="YAML configuration; optional for --doc")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", action="store_true", help="only keys that differ from the defaults")
    what.add_argument("--keys", metavar="PATTERN", help="only keys that contain PATTERN (* and ? as in a shell)")
    what.add_argument("--doc", metavar="PATTERN", help="value, default and meaning of keys that contain PATTERN")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args(arguments)
    if not args.config_file and (args.doc is None or args.opts):
        parser.error("--config-file F is required")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import describe, get_cfg, load_config

    cfg = load_config(args.config_file, args.opts) if args.config_file else get_cfg()
    if args.doc is not None:
        print(describe.documentation(cfg, args.doc))
        return
    tree = describe.plain(cfg)
    if args.diff:
        tree = describe.difference(tree, describe.plain(get_cfg()))
    elif args.keys is not None:
        tree = describe.select(tree, args.keys) or describe.nothing_matches(args.keys)
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"  # otherwise use the escapes of YAML
    print(describe.to_yaml(tree, allow_unicode=is_utf8), end="")


if __name__ == "__main__":
    run_tool(main)
