"""The daemon's own log: its lines, as text and as JSON, and that writing them holds nobody up."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from supervisor.cli.logs import logging_to
from supervisor.errors import AccountUnavailable

LOG = logging.getLogger("supervisor.test")


def lines(folder: Path) -> list[str]:
    return (folder / "logs" / "supervisor.log").read_text().splitlines()


def test_a_line_names_its_account_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It stands before the line, however the line begins."""
    with logging_to(tmp_path / "logs", debug=False):
        LOG.warning("%s: %s", "bot", "lost", extra={"account": "bot"})
        LOG.warning("bots: %s", "lost", extra={"account": "bot"})
        LOG.warning("%d%%", 5)
    assert [line.split(" WARNING ")[1] for line in lines(tmp_path)] == [
        "bot: lost",
        "bot: bots: lost",
        "test: 5%",
    ]
    assert capsys.readouterr().err.count("\n") == 3


def test_json_is_one_object_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everywhere: on stderr and in both files; tracebacks and line ends are inside."""
    with logging_to(tmp_path / "logs", debug=False, style="json"):
        LOG.info("%s: lost\nand found", "bot", extra={"account": "bot"})
        try:
            raise ValueError("x")
        except ValueError:
            LOG.exception("a fault")
        LOG.error("stopped", exc_info=AccountUnavailable("bot", "stopped"))
    first, second, third = (json.loads(line) for line in lines(tmp_path))
    assert first.pop("at").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "supervisor.test",
        "account": "bot",
        "message": "lost\nand found",
        "traceback": None,
    }
    assert (second["level"], second["account"]) == ("error", None)
    assert second["traceback"].endswith("ValueError: x")
    assert third["traceback"] is None
    assert [json.loads(line) for line in capsys.readouterr().err.splitlines()][1] == second
    errors = (tmp_path / "logs" / "errors.log").read_text().splitlines()
    assert [json.loads(line) for line in errors] == [second, third]


def test_libraries_are_tamed_and_ours_are_heard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--debug is ours alone; libraries are heard where something is wrong, those that show urls never."""
    with logging_to(tmp_path / "logs", debug=True):
        LOG.debug("ours")
        for name in ("pyrogram.session", "aiohttp.access", "asyncio", "urllib3.pool", "watchfiles.main"):
            logging.getLogger(name).info("chatter")
            logging.getLogger(name).warning("%s", name)
        logging.getLogger("apprise").error("https://secret")
        logging.getLogger("bots.mine").debug("theirs")
        logging.getLogger("bots.mine").info("heard")
    said = "\n".join(lines(tmp_path))
    assert "ours" in said
    assert "pyrogram.session: pyrogram.session" in said
    assert "heard" in said
    assert not [word for word in ("chatter", "secret", "theirs") if word in said]
    with logging_to(tmp_path / "logs", debug=False):
        LOG.debug("not now")
    assert "not now" not in "\n".join(lines(tmp_path))
    capsys.readouterr()


def test_a_line_that_cannot_be_made_harms_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong format is the writer's fault, and told as such."""
    with logging_to(tmp_path / "logs", debug=False):
        LOG.info("%d", "not a number")
        LOG.info("after")
    assert [line.endswith("after") for line in lines(tmp_path)] == [True]
    assert "TypeError" in capsys.readouterr().err


def test_a_storm_of_lines_costs_its_writer_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line is made once, and written elsewhere: well under a millisecond of the loop's time each."""
    with logging_to(tmp_path / "logs", debug=False):
        began = time.thread_time()
        for n in range(5000):
            LOG.warning("%s: connection lost, attempt %d of 3", "bot", n, extra={"account": "bot"})
        took = time.thread_time() - began
    capsys.readouterr()
    assert len(lines(tmp_path)) == 5000
    assert took / 5000 < 0.0005
