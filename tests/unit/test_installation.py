"""The guard against two distributions behind one import name, on made-up site-packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from supervisor import installation

ROOT = Path(__file__).parents[2]


class Site:
    """A folder of sys.path with distributions in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.path = [str(folder)]

    def install(self, name: str, version: str, *files: str) -> Site:
        """As pip does: a .dist-info whose RECORD lists the files."""
        info = self._info(f"{name}-{version}.dist-info")
        record = [f"{file},sha256=x,1" for file in (*files, f"{info.name}/METADATA")]
        (info / "RECORD").write_text("\n".join([*record, f"{info.name}/RECORD,,", ""]), encoding="utf-8")
        return self

    def install_egg(self, entry: str, *packages: str) -> Site:
        """As setuptools and Debian do: an .egg-info whose top_level.txt names the packages."""
        info = self._info(entry)
        (info / "top_level.txt").write_text("\n".join([*packages, ""]), encoding="utf-8")
        return self

    def _info(self, entry: str) -> Path:
        info = self.folder / entry
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\n", encoding="utf-8")
        return info


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An environment with tg-supervisor in it (editable: its RECORD lists no package) and no client library."""
    return Site(tmp_path / "site-packages").install("tg_supervisor", "0.1.0", "_tg_supervisor.pth")


def test_one_client_library_is_all_well(site: Site) -> None:
    """One client in its tested version: nothing to say."""
    site.install("Pyrogram", "2.0.106", "pyrogram/__init__.py").install("rich", "15.0.0", "rich/__init__.py")
    assert installation.problems(site.path) == []
    assert installation.warnings(site.path) == []
    assert installation.client_library(site.path) == ("pyrogram", "2.0.106")


def test_no_client_library_names_both_extras(site: Site) -> None:
    """Without a client library the repair names both extras, in problems() and in what client_library() raises."""
    (problem,) = installation.problems(site.path)
    assert 'pip install "tg-supervisor[pyrogram]"' in problem
    assert 'pip install "tg-supervisor[kurigram]"' in problem
    assert installation.warnings(site.path) == []
    with pytest.raises(LookupError) as raised:
        installation.client_library(site.path)
    assert raised.value.args == (problem,)


def test_pyrogram_beside_kurigram_is_refused(site: Site) -> None:
    """Both in one folder have overwritten each other: the repair removes both and installs one."""
    site.install("kurigram", "2.2.26", "pyrogram/__init__.py").install(
        "Pyrogram", "2.0.106", "pyrogram/__init__.py"
    )
    (problem,) = installation.problems(site.path)
    assert "pyrogram 2.0.106" in problem
    assert "kurigram 2.2.26" in problem
    assert "pip uninstall -y pyrogram kurigram" in problem


def test_a_fork_of_any_name_counts_by_its_files(site: Site) -> None:
    """A distribution nobody heard of that installs pyrogram/ is a client library too."""
    site.install("some_fork", "1.0", "pyrogram/__init__.py").install(
        "kurigram", "2.2.26", "pyrogram/__init__.py"
    )
    (problem,) = installation.problems(site.path)
    assert "pip uninstall -y kurigram some-fork" in problem


def test_names_alike_do_not_count(site: Site) -> None:
    """Only the very package counts: not pyrogram_patch/, not vendored/pyrogram/, not what pip left half removed."""
    site.install("Pyrogram", "2.0.106", "pyrogram/__init__.py")
    site.install("pyrogram_patch", "1.0", "pyrogram_patch/__init__.py", "vendored/pyrogram/__init__.py")
    site.install("~urigram", "2.2.26", "pyrogram/__init__.py")
    assert installation.problems(site.path) == []


def test_a_client_library_further_back_on_the_path_is_only_shadowed(site: Site, tmp_path: Path) -> None:
    """The system's Kurigram behind a virtual environment's Pyrogram overwrote nothing."""
    site.install("Pyrogram", "2.0.106", "pyrogram/__init__.py")
    behind = Site(tmp_path / "dist-packages").install("kurigram", "2.2.26", "pyrogram/__init__.py")
    behind.install("supervisor", "4.3.0", "supervisor/__init__.py")
    path = site.path + behind.path
    assert installation.problems(path) == []
    assert installation.client_library(path) == ("pyrogram", "2.0.106")


def test_a_folder_named_twice_is_one_folder(site: Site) -> None:
    """What stands twice on sys.path is no second installation; zips and missing folders hold none."""
    site.install("kurigram", "2.2.26", "pyrogram/__init__.py")
    assert installation.problems(["/nowhere/python311.zip", *site.path, *site.path]) == []


@pytest.mark.parametrize("client", ["pyrogram", "kurigram"])
def test_supervisord_is_refused_with_the_client_kept(site: Site, client: str) -> None:
    """Supervisord in the same folder: the repair removes both and brings ours back with the same client library."""
    site.install(client, installation.TESTED[client], "pyrogram/__init__.py")
    site.install("supervisor", "4.3.0", "supervisor/__init__.py", "supervisor/options.py")
    (problem,) = installation.problems(site.path)
    assert problem.startswith("supervisor 4.3.0 and tg-supervisor")
    assert "pip uninstall -y supervisor tg-supervisor" in problem
    assert f'pip install "tg-supervisor[{client}]"' in problem


def test_a_distribution_without_record_counts_by_its_top_level(site: Site) -> None:
    """Editable and Debian installations list no files: top_level.txt, or the name, tells what they import as."""
    site.install_egg("supervisor-4.2.5.egg-info").install_egg("my_fork-3.0-py3.11.egg-info", "pyrogram")
    (problem,) = installation.problems(site.path)
    assert problem.startswith("supervisor 4.2.5 and tg-supervisor")
    assert installation.client_library(site.path) == ("my-fork", "3.0")


def test_every_problem_is_reported_at_once(site: Site) -> None:
    """Supervisord and no client library: two problems, not the first of them."""
    site.install("supervisor", "4.3.0", "supervisor/__init__.py")
    assert len(installation.problems(site.path)) == 2


@pytest.mark.parametrize(("name", "version"), [("kurigram", "2.3.0"), ("pyrofork", "2.3.45")])
def test_an_untested_client_library_is_a_warning(site: Site, name: str, version: str) -> None:
    """Another version, or a fork that nobody tested, runs; what was tested is said."""
    site.install(name, version, "pyrogram/__init__.py")
    assert installation.problems(site.path) == []
    (warning,) = installation.warnings(site.path)
    assert warning.startswith(f"{name} {version} is installed")
    assert "pyrogram 2.0.106 and kurigram 2.2.26" in warning


def test_this_environment_is_sound() -> None:
    """The environment that runs the tests has one client library, in the version that counts as tested."""
    assert installation.problems() == []
    assert installation.warnings() == []
    name, version = installation.client_library()
    assert installation.TESTED[name] == version


def test_the_extras_install_what_counts_as_tested() -> None:
    """pyproject.toml and the guard agree on the versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, version in installation.TESTED.items():
        assert f"{name}=={version}" in project["optional-dependencies"][name]


@pytest.mark.usefixtures("unmeasured")
def test_the_guard_is_light() -> None:
    """The guard runs before everything else: it imports no client library, no asyncio, no importlib.metadata."""
    script = "import sys, supervisor.installation as i; i.problems(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"pyrogram", "asyncio", "importlib.metadata"} & set(run.stdout.split())
