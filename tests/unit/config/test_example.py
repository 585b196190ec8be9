import re
from pathlib import Path

from supervisor.config.model import Settings
from supervisor.core.failure import DEFAULT_POLICIES
from tests.unit.config.files import API_HASH, RSA_PKCS1, SESSION, TOKEN, TOKEN_2, Files, session_file

EXAMPLE = (Path(__file__).parents[3] / "accounts.example.toml").read_text()


def surroundings(files: Files) -> None:
    """The variables and files that the example speaks of."""
    files.env = {
        "TG_API_HASH": API_HASH,
        "DE1_PASSWORD": "p@/:",
        "SUPPORT_TOKEN": TOKEN,
        "OTHER_SESSION": SESSION,
        "HOOK_KEY": "secret",
        "SENTRY_KEY": "secret",
        "ALARM_TOKEN": TOKEN_2,
    }
    files.write(
        {
            "nl3.url": "http://198.51.100.8:3128\n",
            "news-bot.token": TOKEN_2,
            "sales-user.2fa": "secret\n",
            "dashboard.token": "0123456789abcdef\n",
            "bots/support/hello.py": "",
            "dc.pub.pem": RSA_PKCS1,
        }
    )
    session_file(files.folder / "old/sales.session")


def test_example(files: Files) -> None:
    """The example is valid, and what it shows as defaults are the defaults."""
    surroundings(files)
    config = files.load(EXAMPLE)
    assert config.settings == Settings(files.folder / "state")
    assert config.policies == DEFAULT_POLICIES
    assert {name: sink.sort for name, sink in config.notify.items()} == {
        "ops": "webhook",
        "phone": "telegram",
        "team": "bot",
        "journal": "log",
    }
    assert list(config.accounts) == ["support-bot", "news-bot", "sales-user", "old-user", "other-user"]
    assert config.accounts["support-bot"].proxies == ("de1", "nl3")
    assert config.accounts["news-bot"].client == {"device_model": "PC", "workers": 8}


def test_what_is_commented_out(files: Files) -> None:
    """What the example leaves out as a comment is valid too, and every setting is in it."""
    surroundings(files)
    text = re.sub(r"^# (?=\[|[a-z_]+ +=)", "", EXAMPLE, flags=re.MULTILINE)
    config = files.load(text)
    assert config.telegram.server is not None
    assert config.settings.release_rate == 30
    assert not [
        key for key in Settings.__dataclass_fields__ if not re.search(rf"^{key} +=", text, re.MULTILINE)
    ]
