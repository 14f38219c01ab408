"""Waiting for events with a deadline, and what to tell when they do not come."""
import os
import time


class LabError(Exception):
    """The laboratory could not do what a test asked for."""


class CommandFailed(LabError):
    """A command ended with another code than 0; its words are in the message."""


class LabTimeout(LabError):
    """Something did not happen before its deadline."""


def injected(row, count=1):
    """Tells scripts/faults that a fault of that row of tests/faults/table.py was injected `count` times."""
    print(f"\nFAULT {row} {count}", flush=True)


def tail(path, lines=25):
    """The last lines of a log, ready to print; says so if there is no such file. Reads at most 64 KiB."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"--- {path}: {error.strerror}"
    return "\n".join([f"--- {path}"] + text.splitlines()[-lines:])


def wait_until(predicate, deadline_s, what, logs=(), poll_s=0.1):
    """Calls `predicate` until it returns something true, and returns that.

    LabError, OSError (refused connections) and ValueError (half written files) mean "not yet"; others pass through.
    After `deadline_s` seconds raises LabTimeout with `what`, the last answer or error, and the tails of `logs`
    (paths, or objects with a `log` path).
    """
    until = time.monotonic() + deadline_s
    while True:
        try:
            last = predicate()
            if last:
                return last
        except (LabError, OSError, ValueError) as error:
            last = error
        if time.monotonic() >= until:
            tails = [tail(getattr(one, "log", one)) for one in logs]
            raise LabTimeout("\n".join([f"not within {deadline_s} s: {what}; last: {last!r}"] + tails))
        time.sleep(poll_s)
