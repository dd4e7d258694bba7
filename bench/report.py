"""The table and the bars. Pure but for asking the machine what it is."""

import datetime
import os
import platform
import re
import subprocess
from xml.sax.saxutils import escape

WIDTH, LABEL, BAR, HEIGHT, GAP = 900, 150, 560, 20, 14
COLOURS = {"nginx": "#8a939c", "bare line": "#8a939c", "docker-registry": "#d9a441", "Stopover": "#2a78c2"}
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 18px; font-weight: 600 } .what { font-weight: 600 } .small { font-size: 11px; fill: #57606a }
.no { fill: #b42318; font-weight: 600 } .yes { fill: #1a7f37; font-weight: 600 }
"""


def number(value):
    """Returns a number with as many digits as help."""
    if value is None:
        return ""
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def verdict(line):
    """Returns whether the line's figure is reached, as a word."""
    return {None: "", True: "yes", False: "**no**"}[line.is_reached]


def markdown(lines, machine):
    """Returns the table and, under it, what it was measured on."""
    head = "| | unit | nginx or bare line | docker-registry | Stopover | figure | must be | reached |"
    rows = [head, "|---|---|--:|--:|--:|--:|--:|---|"]
    for line in lines:
        columns = (("nginx", "bare line"), ("docker-registry",), ("Stopover",))
        values = [number(first(line.values, names)) for names in columns]
        cells = [line.what, line.unit, *values, line.figure, line.must, verdict(line)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", *machine]) + "\n"


def first(values, names):
    """Returns the value of the first of the names that has one."""
    return next((values[name] for name in names if name in values), None)


def svg(lines, machine):
    """Returns a group of bars for each line, the longest of a group as long as there is room."""
    drawn, y = [f'<text x="20" y="32" class="title">Stopover beside nginx and docker-registry</text>'], 64
    for line in lines:
        drawn.append(f'<text x="20" y="{y}" class="what">{escape(line.what)}</text>')
        if line.must:
            kind, word = ("yes", "reached") if line.is_reached else ("no", "not reached")
            text = f'{escape(line.figure)}, must be {escape(line.must)}: <tspan class="{kind}">{word}</tspan>'
            drawn.append(f'<text x="{WIDTH - 20}" y="{y}" text-anchor="end" class="small">{text}</text>')
        most, y = max(line.values.values()) or 1, y + 8
        for who, value in line.values.items():
            length = max(1, round(BAR * value / most))
            place = f'x="{LABEL + 20}" y="{y + 2}" width="{length}" height="{HEIGHT - 4}"'
            text = f"{number(value)} {escape(line.unit)}"
            drawn.append(f'<text x="{LABEL + 10}" y="{y + 15}" text-anchor="end">{who}</text>')
            drawn.append(f'<rect {place} rx="2" fill="{COLOURS[who]}"/>')
            drawn.append(f'<text x="{LABEL + 28 + length}" y="{y + 15}">{text}</text>')
            y += HEIGHT
        y += GAP + 14
    for line in machine:
        drawn.append(f'<text x="20" y="{y}" class="small">{escape(line)}</text>')
        y += 16
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{STYLE}</style>"]
    return "\n".join([*parts, '<rect width="100%" height="100%" fill="#ffffff"/>', *drawn, "</svg>"]) + "\n"


def machine(command):
    """Returns lines that say what was measured, on what, when, and how."""
    with open("/proc/cpuinfo") as file:
        found = re.search(r"model name\s*: (.*)", file.read())
    cpu = found[1] if found else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    stopover, nginx = version([os.environ["STOPOVER_BIN"], "--version"]), version(["nginx", "-v"])
    registry = version(["docker-registry", "--version"])
    # bench/run says it of what it has built; of a binary that it was given nobody knows.
    commit = os.environ.get("BENCH_COMMIT") or "unknown, the binary was given"
    return [
        f"{stopover} (commit {commit}), nginx {nginx}, docker-registry {registry}.",
        f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}; the server kept to one core "
        f"with one worker, the clients and the stand-in Hub to another, over loopback.",
        f"{datetime.date.today()}, by {command}; load before the run: {os.getloadavg()[0]:.1f}.",
    ]


def version(command):
    """Returns what a program says of its version."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    said = (done.stdout + done.stderr).strip()
    return re.sub(r"^(nginx version: nginx/|docker-registry \S+ )", "", said) if done.returncode == 0 else ""
