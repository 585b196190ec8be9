import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.config.model import Account, Proxy, Secret, mask_phone
from tests.unit.config.files import API_HASH, PHONE, SESSION, TOKEN, Files

WORD = "correct-horse"  # a password that looks like any other word
URL = f"socks5://user:{WORD}@198.51.100.7:1080"
SHAPED = (TOKEN, API_HASH, SESSION, PHONE, URL)  # what is known for a secret by its looks, wherever it stands

PLACES = (  # every string of a configuration, keys included
    "%s = 1",
    "include = [%s]",
    "[%s]",
    "[telegram]\n%s = 1",
    "[telegram]\napi_id = %s",
    "[telegram]\napi_hash = %s",
    "[telegram]\napi_hash_file = %s",
    "[telegram]\nserver = %s",
    "[telegram.server]\nhost = %s\nport = %s\ndc_id = %s\npublic_key = %s",
    "[supervisor]\nstate_dir = 1\nmax_held = %s\ncallbacks = [%s]\nmissed_updates = %s",
    "[supervisor]\ncallbacks = %s\n%s = 5",
    "[recovery]\n%s = {}",
    "[recovery.auth]\naction = %s\nmax_retries = %s\n%s = 2",
    "[classify]\n%s = { kind = %s, action = %s, scope = %s }",
    "[classify]\nX = %s",
    "[proxies.p]\nurl = %s\npool = %s",
    "[proxies.p]\nurl_file = %s\n%s = 1",
    "[proxies.%s]\nurl = 1",
    "[proxies]\nx = %s",
    "[defaults]\nproxy = %s\nplugins = %s\nmain = %s\nclient = %s\n%s = 1",
    "[accounts]\nx = %s",
    "[accounts.%s]\nx = 1",
    "[accounts.x]\nbot_token = %s\nphone = %s\npassword_file = %s\nsession_string = %s\nsession_file = %s",
    "[accounts.x]\nbot_token_file = %s\nphone_file = %s\nsession_string_file = %s\nproxy = [%s]",
    "[accounts.x]\n%s = %s\nproxy = %s\nplugins = %s\nmain = %s\nclient = { %s = %s, api_id = %s }",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", SHAPED)
def test_misplaced(files: Files, place: str, secret: str) -> None:
    """A token, hash, session, phone number or url in the wrong place, even as a key, is in no message."""
    problems = files.problems(place.replace("%s", f'"{secret}"'))
    assert problems
    assert not [problem for problem in problems if secret in problem or WORD in problem]


@pytest.mark.parametrize("place", PLACES)
def test_from_variable(files: Files, place: str) -> None:
    """What came from a variable is in no message, whatever it looks like."""
    files.env = {"X": WORD}
    keys = place.replace("%s =", "k =").replace(".%s]", ".k]").replace("[%s]\n", "[k]\n")
    problems = files.problems(keys.replace("%s", '"${X}"'))
    assert not [problem for problem in problems if WORD in problem]


@pytest.mark.parametrize("key", ["bot_token", "phone", "password", "session_string"])
@pytest.mark.parametrize("suffix", ["", "_file"])
def test_in_its_place(files: Files, key: str, suffix: str) -> None:
    """A secret's key never shows its value, nor its file's content, nor the file's path."""
    files.write({"x": WORD})
    for value in (WORD, "x"):
        problems = files.problems(
            f'[accounts.x]\n{key}{suffix} = "{value}"\n[proxies.p]\nurl{suffix} = "{value}"'
        )
        assert problems
        assert not [problem for problem in problems if WORD in problem]


@given(
    place=st.sampled_from(PLACES),
    secret=st.sampled_from(SHAPED),
    cut=st.integers(0, 4),
    mess=st.text("\n\"'[]{}=", max_size=3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_broken_toml(files: Files, place: str, secret: str, cut: int, mess: str) -> None:
    """A syntax error around a secret does not show it either."""
    text = place.replace("%s", f'"{secret}"')
    assert not [problem for problem in files.problems(text[: len(text) - cut] + mess) if secret in problem]


def test_repr() -> None:
    """Printing the model shows no secret."""
    secret = Secret(WORD)
    assert [str(secret), repr(secret), f"{secret}", f"{secret!r:>5}", f"{secret}"] == ["***"] * 3 + [
        "  ***",
        "***",
    ]
    account = Account("x", bot_token=secret, phone=secret, password=secret, session_string=secret)
    proxy = Proxy("p", "socks5", "h", 1, "user", secret)
    assert WORD not in repr([account, proxy]) + str(proxy)
    assert secret == Secret(WORD)
    assert secret.reveal() == WORD
    assert str(Proxy("p", "http", "::1", 80)) == "http://[::1]:80"


def test_mask_phone() -> None:
    """A phone number is shown by its beginning and its end."""
    assert mask_phone(PHONE) == "+49…78"
