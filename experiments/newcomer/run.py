"""Follow docs/newcomer.md from clone to a faster network, and time every step. See README.md."""

import argparse
import datetime
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs/newcomer.md"
BEGIN, END = "<!-- steps: begin (made by experiments/newcomer/run.py) -->", "<!-- steps: end -->"
WORDS = {
    "git clone": "clone",
    "make .venv": "install into an environment of its own",
    "cbs prune digits": "see it work (and compile)",
    "python net.py": "train a model",
    "cbs prune net.py": "prune it",
    "cbs export": "write it",
    "cbs bench": "time it",
}
TOLD = r"accuracy \d.*|\d[\d.]*%\s+joint.*|file +\S+ [\d,]+ bytes.*|Batch 1: .*"
"""Of what a step prints, the line that a newcomer looks at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--here", action="store_true", help="with this environment: neither clone nor install"
    )
    here = parser.parse_args().here
    text = PAGE.read_text(encoding="utf-8")
    shell = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    log, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = folder / "own"
        own.mkdir()
        (own / "net.py").write_text(program)
        binaries = Path(sys.executable).parent if here else folder / "cbs/.venv/bin"
        environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "100"}
        for command in shell:
            word = next((word for start, word in WORDS.items() if command.startswith(start)), None)
            setting_up = command.startswith(("git", "make"))
            if word is None or (here and setting_up):
                continue
            typed = command.replace("REPOSITORY", str(ROOT))
            place = folder if command.startswith("git") else folder / "cbs" if setting_up else own
            seconds, cpu, printed = timed(typed, place, environment)
            log.append(f"$ {command}\n{printed}")
            told = re.findall(TOLD, printed)
            rows.append(
                (word, f"{seconds:.0f}", f"{cpu:.0f}", re.sub(r" {2,}", " ", told[-1]) if told else "")
            )
            print(rows[-1], flush=True)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results/log.txt").write_text("\n".join(log).replace(str(ROOT), "REPOSITORY"))
    day = datetime.date.today().isoformat()
    load = os.getloadavg()[0]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load average {load:.0f}"
    lines = [
        f"{day}, {machine}.", "", "| step | seconds | of the processor | it says |", "|---|---:|---:|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]  # fmt: skip
    before, rest = text.split(BEGIN)
    PAGE.write_text("\n".join([f"{before}{BEGIN}", *lines, END + rest.split(END)[1]]), encoding="utf-8")


def timed(command: str, folder: Path, environment):
    """Wall seconds, those of the processor, and what was printed; a step that fails ends all."""
    used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    seconds, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, done.stdout


if __name__ == "__main__":
    main()
