"""Ends processes whose starter is gone, however it went.

The starter writes `+PID` and `-PID` lines to this program's standard input. When that closes (a clean
exit, a crash, kill -9), every process group still listed is killed. Signals cannot promise that.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Keep the list until the other end of standard input is gone, then kill what is left on it."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    listed: set[int] = set()
    for line in sys.stdin:
        number = int(line[1:])
        (listed.add if line[0] == "+" else listed.discard)(number)
    for number in listed:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)


if __name__ == "__main__":
    main()
