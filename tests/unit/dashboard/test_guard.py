"""Who may ask."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from supervisor.config.model import Dashboard, Secret
from supervisor.dashboard.guard import TOKEN_FILE, token_of
from tests.unit.dashboard.made_up import Desk
from tests.unit.dashboard.served import BEARER, OPENAPI, TOKEN, Asking, asking, check_described

CLOSED = [path for path in OPENAPI["paths"] if path != "/healthz" and "{" not in path]
NO_TOKEN: list[dict[str, str]] = [
    {}, {"Authorization": "Bearer"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"}, {"Authorization": f"Bearer {TOKEN}x"}, {"Cookie": f"token={TOKEN}"},
    {"Authorization": "Bearer \u00fc"},
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
async def test_nothing_is_told_without_the_token(ask: Asking, path: str) -> None:
    """Every route but /healthz and the empty page is 401 without the token, commands too."""
    method = next(iter(OPENAPI["paths"][path])).upper()
    answer = await ask.request(method, path, headers={"Content-Type": "application/json"})
    assert answer.status == 401
    assert "bot-" not in answer.text
    assert answer.json()["error"]["name"] == "token_missing"
    check_described(path, method, answer)


@pytest.mark.parametrize("headers", NO_TOKEN)
async def test_only_the_token_itself_is_one(ask: Asking, headers: dict[str, str]) -> None:
    """Another one, a part of it, or the token in another place is none; nor is one in the address."""
    assert (await ask.get("/api/v1/status", headers=headers)).status == 401
    assert (await ask.get(f"/api/v1/status?token={TOKEN}", headers=headers)).status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.", "[::2]"]
)
@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/healthz", "/api/v1/status", "/metrics", "/nothing"]
)
async def test_a_wrong_host_is_refused(ask: Asking, path: str, host: str) -> None:
    """Whoever asks by another name is refused, with the token too: that name may be another site's."""
    answer = await ask.get(path, headers=BEARER | {"Host": host})
    assert answer.status == 421
    assert answer.json()["error"]["name"] == "wrong_host"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "LOCALHOST", "[::1]:1", "bots.example.org"])
async def test_its_own_names_are_right(desk: Desk, state_dir: Path, host: str) -> None:
    """This machine's names are right at any port, which may be that of a tunnel, and so are those of `hosts`."""
    async with asking(desk, state_dir, hosts=("bots.example.org",)) as ask:
        assert (await ask.get("/healthz", headers={"Host": host})).status == 200


CROSS: list[dict[str, str]] = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
]  # fmt: skip


@pytest.mark.parametrize("headers", CROSS)
async def test_a_command_of_another_site_is_refused(ask: Asking, desk: Desk, headers: dict[str, str]) -> None:
    """A post that another site makes does nothing, even if it knows the token."""
    before = dict(desk.accounts)
    answer = await ask.request(
        "POST", "/api/v1/actions/pause", headers=BEARER | headers, json={"accounts": ["bot-0001"]}
    )
    assert answer.status == 403
    assert answer.json()["error"]["name"] == "cross_site"
    assert desk.accounts == before
    assert (await ask.get("/api/v1/status", headers=BEARER | headers)).status == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_what_a_form_can_send_is_no_command(ask: Asking, desk: Desk, kind: str) -> None:
    """A command is JSON, which no form of another site can send without the browser's asking first."""
    before = dict(desk.accounts)
    answer = await ask.request(
        "POST",
        "/api/v1/actions/pause",
        headers=BEARER | {"Content-Type": kind},
        data='{"accounts":["bot-0001"]}',
    )
    assert answer.status == 415
    assert desk.accounts == before


async def test_the_browser_is_told_no_to_all_else(ask: Asking) -> None:
    """Each response, refusals too, lets the page load from itself only, and be framed by nobody; asking first is refused."""
    for path in ("/", "/static/app.js", "/api/v1/status", "/nothing", "/healthz"):
        headers = (await ask.get(path)).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert not [name for name in headers if name.startswith("Access-Control")]
    preflight = await ask.request(
        "OPTIONS", "/api/v1/actions/pause", headers={"Origin": "https://evil.example"}
    )
    assert preflight.status == 403


async def test_the_page_is_its_own(ask: Asking) -> None:
    """The page and its files name no other host, hold no script or style of their own, and are all there."""
    page = (await ask.get("/", headers={})).text
    assert "<style" not in page
    assert "style=" not in page
    assert "onclick" not in page
    assert page.count("<script") == page.count('<script type="module" src="static/')
    for name in ("app.js", "lib.js", "list.js", "charts.js", "panel.js", "app.css", "icon.svg"):
        file = await ask.get(f"/static/{name}", headers={})
        assert file.status == 200
        hosts = file.text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in hosts, name
        assert "innerHTML" not in file.text
    assert (await ask.get("/static/../api.py", headers={})).status == 404
    assert (await ask.get("/static/%2e%2e/api.py", headers={})).status == 404


def test_a_token_is_made_once(tmp_path: Path) -> None:
    """Without one in the configuration a long random one is kept in state_dir, for its owner's eyes; it stays."""
    settings = Dashboard("127.0.0.1", 1)
    made = token_of(settings, tmp_path)
    file = tmp_path / TOKEN_FILE
    assert len(made) >= 40
    assert file.read_text().strip() == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert token_of(settings, tmp_path) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("\n")
    assert len(token_of(settings, tmp_path)) >= 40


def test_the_configured_token_goes_first(tmp_path: Path) -> None:
    """With one in the configuration none is made."""
    assert token_of(Dashboard("127.0.0.1", 1, Secret(TOKEN)), tmp_path) == TOKEN
    assert list(tmp_path.iterdir()) == []


def test_a_broken_token_file_is_named(tmp_path: Path) -> None:
    """A file that holds no token is named, and not overwritten."""
    (tmp_path / TOKEN_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match=TOKEN_FILE):
        token_of(Dashboard("127.0.0.1", 1), tmp_path)
