"""Try to break ovseg: by killing, damaged inputs, attacks, want, and load.

    python -m tests.campaign fuzz --minutes 10 --seed 1
    python -m tests.campaign kill --count 200
    python -m tests.campaign attack

Ends with a table of what was tried and with exit code 1 if anything was wrong. Inputs are made
from the seed: a fault's line says which, and the same seed makes it again.
"""

import argparse
import sys

from tests.campaign import attacks, fuzz, kill, load, starve
from tests.campaign.report import Report


def campaign(options: argparse.Namespace) -> Report:
    """Run the part that was asked for."""
    minutes, seed = options.minutes, options.seed
    if options.part == "kill":
        works = tuple(make() for name, make in kill.WORKS.items() if name in options.only)
        return kill.kill(minutes, seed, options.count or 200, works)
    if options.part == "fuzz":
        return fuzz.fuzz(minutes, seed, options.count or fuzz.ALL_OF_THEM, options.only)
    if options.part == "load":
        return load.load(minutes, seed, options.count or 12_000_000)
    return {"attack": attacks.attack, "starve": starve.starve}[options.part](
        minutes, seed, options.only
    )


def main() -> int:
    """Read the command line, run, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("kill", "fuzz", "attack", "starve", "load"))
    parser.add_argument("--minutes", type=float, default=60.0, help="begin nothing after them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="kills each, inputs, or rows of the table")
    parser.add_argument("--only", nargs="+", default=[], help="of these names")
    report = campaign(parser.parse_args())
    sys.stdout.write(report.table() + "\n")
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
