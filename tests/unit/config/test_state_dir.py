import subprocess
import sys

import pytest

from supervisor.config.load import load_state_dir
from supervisor.errors import ConfigError
from tests.unit.config.files import Files

BROKEN = '[telegram]\napi_hash = "${UNSET}"\n[accounts]\nx = 1\n[supervisor]\nmax_held = "x"\n'


def test_default(files: Files) -> None:
    """Without a word about it, it is `state` beside the file."""
    files.write({"conf/a.toml": BROKEN})
    assert load_state_dir("conf/a.toml", env={}) == files.folder / "conf/state"


def test_among_mistakes(files: Files) -> None:
    """Unset variables and every other mistake are no hindrance; a broken included file neither."""
    files.write({"a.toml": f'include = ["x.toml", "${{NO}}"]\n{BROKEN}state_dir = "${{D}}/s"', "x.toml": "="})
    assert load_state_dir("a.toml", env={"D": "/data"}).as_posix() == "/data/s"


def test_included(files: Files) -> None:
    """It is found in an included file, relative to that."""
    files.write({"a.toml": 'include = ["d/*.toml"]\n' + BROKEN, "d/x.toml": '[supervisor]\nstate_dir = "s"'})
    assert load_state_dir("a.toml", env={}) == files.folder / "d/s"


def test_elsewhere(files: Files) -> None:
    """The command line comes before the environment, and then no file is read."""
    env = {"TG_SUPERVISOR_STATE_DIR": "e"}
    assert load_state_dir("none.toml", env=env) == files.folder / "e"
    assert load_state_dir("none.toml", env=env, overrides={"state_dir": "/o"}).as_posix() == "/o"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[supervisor]\nstate_dir = "${NO}"', "a.toml:2: supervisor.state_dir: the variable NO is not set"),
        (
            "[supervisor]\nstate_dir = 5\n[x]",
            "a.toml:2: supervisor.state_dir: must be a string, not a whole number",
        ),
        ('include = ["none"]', 'a.toml:1: include: "none" cannot be read: No such file or directory'),
    ],
)
def test_wrong(files: Files, text: str, problem: str) -> None:
    """Only what concerns it is reported: it may stand in a file that cannot be read."""
    files.write({"a.toml": text})
    with pytest.raises(ConfigError) as error:
        load_state_dir("a.toml", env={})
    assert error.value.problems == [problem]


@pytest.mark.parametrize(
    "text",
    [
        '[telegram\napi_id = 1\n[supervisor]\nmax_held = "\nstate_dir = "../s"  # there\n[accounts.x]\nstate_dir = "no"',
        '[supervisor]\nstate_dir = "../s"\nstate_dir = "twice"\n',
        'x = """\n[ supervisor ]\nstate_dir = "../s"\n',
        'include = ["d/*.toml"]\n[accounts.x\nstate_dir = "no"',
    ],
)
def test_no_toml(files: Files, text: str) -> None:
    """Of a file that is no TOML, the line that names it is read by itself, and that of the included files."""
    files.write({"etc/a.toml": text, "etc/d/x.toml": '[supervisor]\nstate_dir = "../../s"\n[broken'})
    assert load_state_dir("etc/a.toml", env={}) == files.folder / "s"


@pytest.mark.parametrize("text", ["a = \n", '[supervisor]\nstate_dir = "s\n', 'include = ["x\n'])
def test_no_toml_and_no_line(files: Files, text: str) -> None:
    """Where no line names it, the default is believed only if it is there; a broken line is no line. Else it is said what to do."""
    files.write({"a.toml": text})
    with pytest.raises(ConfigError) as error:
        load_state_dir("a.toml", env={})
    problem, hint = error.value.problems
    assert problem.startswith("a.toml:")
    assert "it is not TOML" in problem
    assert "set TG_SUPERVISOR_STATE_DIR" in hint
    (files.folder / "state").mkdir()
    if "a =" in text:
        assert load_state_dir("a.toml", env={}) == files.folder / "state"
    else:
        with pytest.raises(ConfigError, match="TG_SUPERVISOR_STATE_DIR"):
            load_state_dir("a.toml", env={})


def test_missing(files: Files) -> None:
    """A file that is not there, and a directory that is a file, are problems."""
    with pytest.raises(ConfigError, match=r"^a\.toml: the configuration file cannot be read"):
        load_state_dir("a.toml", env={})
    files.write({"f": ""})
    with pytest.raises(ConfigError, match=r"^command line: supervisor\.state_dir: is not a directory$"):
        load_state_dir("a.toml", env={}, overrides={"state_dir": "f"})


@pytest.mark.usefixtures("unmeasured")
def test_cheap() -> None:
    """Finding it costs the reading commands no heavy import."""
    heavy = {"asyncio", "pydantic", "pyrogram", "sqlite3", "socket", "ssl", "difflib", "logging"}
    code = f"import sys, supervisor.config.load; print(*(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
