"""The program of a zygote: `python -s -P -S boot.py <control fd> <worker's pid> <landlock 0 or 1> <engine> [folder …]`.

Started with nothing in the environment (or PYTHONHASHSEED), no descriptor but the control socket, and without `site`,
whose .pth files are not ours. Nothing of the project is importable but this folder and the engine's.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    control, worker, landlock, engine, *folders = arguments
    here = str(Path(__file__).parent)
    sys.path[:0] = [here, str(Path(engine).parent), *folders]
    zygote = importlib.import_module("zygote")
    zygote.main(
        int(control),
        lambda: importlib.import_module(Path(engine).stem).engine(),
        worker=int(worker),
        landlock=landlock == "1",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
