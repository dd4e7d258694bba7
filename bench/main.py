"""bench/run's second half: runs the rows and writes what they found."""

import os
import sys
import time

import report
import rows
from stand import Failed, Stand, end_on_signals

HERE = os.path.dirname(os.path.abspath(__file__))


def main(arguments):
    """Runs the rows named, or all of them; returns 1 if one could not be measured. A figure that is not reached is
    no failure."""
    wanted = [argument for argument in arguments if argument != "--quick"]
    unknown = [name for name in wanted if name not in rows.ALL]
    if unknown:
        print(f"bench/run: no such row: {', '.join(unknown)} (there are: {', '.join(rows.ALL)})", file=sys.stderr)
        return 2
    end_on_signals()
    is_quick = "--quick" in arguments
    scale = rows.QUICK if is_quick else rows.Scale()
    machine = report.machine(" ".join(["bench/run", *arguments]))
    lines, failed = [], []
    for name in wanted or rows.ALL:
        begun = time.monotonic()
        try:
            with Stand() as stand:
                lines += rows.ALL[name](stand, scale)
            print(f"bench/run: {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
        except Failed as failure:
            failed.append(name)
            print(f"bench/run: {name} FAILED: {failure}", file=sys.stderr)
    table = report.markdown(lines, machine)
    print(table)
    if not wanted and not failed:
        write("results.md", f"# Results\n\nMade by `bench/run`; do not edit.\n\n{table}")
        write("results.svg", report.svg(lines, machine))
    return 1 if failed else 0


def write(name, text):
    """Writes a file beside this one."""
    with open(os.path.join(HERE, name), "w") as file:
        file.write(text)


sys.exit(main(sys.argv[1:]))
