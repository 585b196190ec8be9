"""All benchmarks, one after the other: `python -m benchmarks [--quick]`."""

from __future__ import annotations

import os
import platform
import time

from benchmarks import calls, faults, fleet, script, storm
from supervisor.installation import client_library


async def main(quick: bool) -> None:
    begun = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    library = " ".join(client_library())
    print(
        f"{library} on Python {platform.python_version()}, {platform.system()}, {cores} cores\n", flush=True
    )
    await calls.main(quick)
    await faults.main(quick)
    await fleet.main(fleet.QUICK if quick else fleet.Plan())
    await storm.main(storm.QUICK if quick else storm.Size(), quick=quick)
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    options = script.arguments(__doc__).parse_args()
    script.run(lambda: main(options.quick))
