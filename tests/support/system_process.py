"""A process of a fleet that opens a policy as the system, as a worker does, twenty times a second, and tells what opened it.

A line each time: when it asked (seconds since the epoch), and the role of the key that answered.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from keystead.core.ids import new_id
from keystead.core.keys.decide import Operation
from keystead.wiring import open_home


def main(path: Path, policy_id: str) -> None:
    """Until the process is ended."""
    services = open_home(path).services
    while True:
        begun = time.time()
        opened = services.keyring.open(policy_id, Operation.SYSTEM, request_id=new_id(services.random))
        sys.stdout.write(f"{begun} {opened.opened_by.value}\n")
        sys.stdout.flush()
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
