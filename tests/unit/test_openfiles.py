"""Open files: the limit is raised, and what does not fit is said before anything is opened. Each in a process of its own."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from supervisor import openfiles

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from supervisor import openfiles
openfiles.raise_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
print(openfiles.problems({accounts}, {proxies}))
"""


def limited(soft: int, hard: int, accounts: int, proxies: int = 0) -> list[str]:
    script = LIMITED.format(soft=soft, hard=hard, accounts=accounts, proxies=proxies)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.splitlines()


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """Whatever a shell or a service manager has left it at."""
    assert limited(64, 256, accounts=10)[0] == "(256, 256)"


def test_what_fits_is_no_problem_and_one_more_is() -> None:
    """With what is open beside the accounts' sockets counted in."""
    fits = 300 - openfiles.MARGIN
    assert limited(300, 300, accounts=fits - 4, proxies=4)[1] == "[]"
    told = (
        f"{fits} accounts need about 301 open files, this process may open 300: "
        "raise LimitNOFILE= (systemd) or ulimit -Hn"
    )
    assert limited(300, 300, accounts=fits, proxies=1)[1] == str([told])


def test_a_system_without_a_hard_limit_is_asked_for_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is infinite for the soft one on every system."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    openfiles.raise_limit()
    assert asked == [(openfiles.PLENTY, resource.RLIM_INFINITY)]
    assert openfiles.problems(10**6, 0) == []
