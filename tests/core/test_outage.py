"""When trouble is an account's own, its path's, or everybody's."""

from __future__ import annotations

import pytest

from supervisor.core.failure import Scope
from supervisor.core.outage import Sight, shared

FLEET, PATH = Scope.FLEET, Scope.PATH


@pytest.mark.parametrize(
    ("sights", "found"),
    [
        ({}, {}),
        # one account on a healthy path, or two: their own
        ({"direct": Sight(10, 1, broken=False)}, {}),
        ({"direct": Sight(10, 2, broken=False)}, {}),
        # so few are not many, whatever the path
        ({"direct": Sight(2, 2, broken=True)}, {}),
        ({"de1": Sight(1, 1, broken=True), "nl3": Sight(5, 0, broken=False)}, {}),
        # many on one path: the path's
        ({"de1": Sight(250, 25, broken=False), "nl3": Sight(250, 0, broken=False)}, {"de1": PATH}),
        ({"de1": Sight(250, 24, broken=False), "nl3": Sight(250, 0, broken=False)}, {}),
        ({"de1": Sight(250, 3, broken=True), "nl3": Sight(250, 1, broken=False)}, {"de1": PATH}),
        # a tenth of a path that answers is no outage of all, even where there is no other path
        ({"direct": Sight(1000, 100, broken=False)}, {"direct": PATH}),
        # all paths together
        ({"direct": Sight(1000, 500, broken=False)}, {"direct": FLEET}),
        ({"direct": Sight(1000, 3, broken=True)}, {"direct": FLEET}),
        (
            {"de1": Sight(250, 200, broken=True), "nl3": Sight(250, 130, broken=False)},
            {"de1": FLEET, "nl3": FLEET},
        ),
        # each account on a proxy of its own
        (
            {name: Sight(1, 1, broken=True) for name in ("de1", "nl3", "us2")},
            {"de1": FLEET, "nl3": FLEET, "us2": FLEET},
        ),
        # a path that is down and on which nobody has failed yet has no failures to share
        (
            {"de1": Sight(5, 4, broken=True), "nl3": Sight(5, 0, broken=True)},
            {"de1": FLEET},
        ),
    ],
)
def test_how_far_it_reaches(sights: dict[str, Sight], found: dict[str, Scope]) -> None:
    """Of every path whose accounts' failures are not their own."""
    assert shared(sights) == found
