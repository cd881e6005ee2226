"""Where things are, and how programs are run."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
CACHE = TOOLS / "cluster"
# Of one run.
STATE = ROOT / "target" / "cluster"


def need(what):
    sys.exit(f"cluster: something is missing; run: {what}")


def write(path, text):
    pathlib.Path(path).write_text(text)


def run(*command, check=True, text=None, **more):
    """Standard output; an error with what was said, if it failed and that matters."""
    done = subprocess.run([str(each) for each in command], input=text, capture_output=True, text=True, **more)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[:6]))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()
