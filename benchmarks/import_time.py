"""B8: what ``import lsdask`` costs. Prints one JSON line."""

import json
import statistics
import subprocess
import sys

CODE = "import time; t = time.perf_counter(); import lsdask; print(time.perf_counter() - t)"


def seconds() -> float:
    """The time of one import in a new interpreter."""
    return float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the median of eleven imports, in milliseconds, beside the target."""
    seconds()
    median = statistics.median(seconds() for _ in range(11))
    print(json.dumps({"benchmark": "B8 import", "import_ms": round(1000 * median, 2), "target_ms": 50}))


if __name__ == "__main__":
    main()
