"""The command: start a platform, measure, report. `python -m bench --help`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from bench import report
from bench.measurements import MEASUREMENTS, ONCE, QUICK, Figures, Sizes
from bench.platform import Layout, running

ENVIRONMENT = {
    "MILLRACE_EGRESS_ALLOW": "127.0.0.1",
    "MILLRACE_EGRESS_PLAIN_HTTP": "true",
    "MILLRACE_LOG_LEVEL": "warning",
}


def main() -> None:
    options = _options()
    if sys.platform != "linux":
        sys.exit("The measurements read /proc and need Linux.")
    asyncio.run(_measure(options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", action="extend", type=_names, metavar="NAME,…", help=f"measure these of {', '.join(MEASUREMENTS)}"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, one round: a look, not a result")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the medians are reported (default 3)")
    parser.add_argument("--api-processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise argparse.ArgumentTypeError(f"there is no measurement {', '.join(unknown)}")
    return names


async def _measure(options: argparse.Namespace) -> None:
    sizes = QUICK if options.quick else Sizes()
    names = [name for name in MEASUREMENTS if not options.only or name in options.only]
    layout = Layout(api_processes=options.api_processes, workers=options.workers)
    rounds: dict[str, list[Figures]] = {name: [] for name in names}
    async with running(layout, ENVIRONMENT) as platform:
        surroundings = await report.surroundings(platform, layout)
        for number in range(1 if options.quick else options.rounds):
            for name in names:
                if name in ONCE and number > 0:
                    continue
                print(f"round {number + 1}: {name} …", file=sys.stderr, flush=True)
                rounds[name].append(await MEASUREMENTS[name](platform, sizes))
    report.show(surroundings, rounds)
    if options.json:
        options.json.write_text(json.dumps({"surroundings": surroundings, "rounds": rounds}, indent=1))
