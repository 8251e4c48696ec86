"""What the launch script would start verl with, seen by a python that only writes down its arguments."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "recast_train/adapters/verl/launch_openonerec.sh"


def launch_arguments(folder: Path, *words: str, **environment: str) -> list[str]:
    """Arguments of `verl.trainer.main_ppo` for words and environment of the launch script."""
    python, seen = folder / "python", folder / "arguments"
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {seen}\n")
    python.chmod(0o755)
    own = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "MODEL": "/model", "DATA": "/data", **environment}
    subprocess.run(["bash", SCRIPT, *words], check=True, env=own)
    module, name, *arguments = seen.read_text().splitlines()
    assert (module, name) == ("-m", "verl.trainer.main_ppo")
    return arguments
