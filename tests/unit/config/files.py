"""A directory with configuration files, made-up secrets, and what `load` says of them."""

import base64
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from supervisor.config.load import load
from supervisor.config.model import Config
from supervisor.errors import ConfigError

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
TOKEN_2 = "220201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
API_HASH = "0123456789abcdef0123456789abcdef"
PHONE = "+4915112345678"
SESSION = base64.urlsafe_b64encode(bytes(range(256)) + b"fifteen more by").decode().rstrip("=")

TELEGRAM = f'[telegram]\napi_id = 12345\napi_hash = "{API_HASH}"\n'
ACCOUNT = f'[accounts.bot]\nbot_token = "{TOKEN}"\n'
LEAST = TELEGRAM + ACCOUNT

RSA_PKCS1 = """-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAyMEdY1aR+sCR3ZSJrtztKTKqigvO/vBfqACJLZtS7QMgCGXJ6XIR
yy7mx66W0/sOFa7/1mAZtEoIokDP3ShoqF4fVNb6XeqgQfaUHd8wJpDWHcR2OFwv
plUUI1PLTktZ9uW2WE23b+ixNwJjJGwBDJPQEQFBE+vfmH0JP503wr5INS1poWg/
j25sIWeYPHYeOrFp/eXaqhISP6G+q2IeTaWTXpwZj4LzXq5YOpk4bYEQ6mvRq7D1
aHWfYmlEGepfaYR8Q0YqvvhYtMte3ITnuSJs171+GDqpdKcSwHnd6FudwGO4pcCO
j4WcDuXc2CTHgH8gFTNhp/Y8/SpDOhvn9QIDAQAB
-----END RSA PUBLIC KEY-----
"""  # Telegram's test datacenter key, https://core.telegram.org/api/obtaining_api_id lists such


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Make the files, and the directories they need."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def session_file(path: Path) -> None:
    """Make an SQLite file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE sessions (dc_id INTEGER)")
    database.commit()
    database.close()


class Files:
    """The directory of one test, which is the working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env: dict[str, str] = {}
        self.overrides: dict[str, str] = {}

    def write(self, files: Mapping[str, str | bytes]) -> None:
        write(self.folder, files)

    def load(self, text: str | bytes) -> Config:
        """What the text, as accounts.toml, loads as."""
        self.write({"accounts.toml": text})
        return load("accounts.toml", env=self.env, overrides=self.overrides)

    def problems(self, text: str | bytes) -> list[str]:
        """Everything that is said to be wrong with the text, as accounts.toml."""
        try:
            self.load(text)
        except ConfigError as error:
            return error.problems
        return []

    def problem(self, text: str | bytes) -> str:
        """The one thing that is wrong."""
        (problem,) = self.problems(text)
        return problem
