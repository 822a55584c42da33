"""Credentials come from the environment alone, and are never shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fttune.config import load_sweep
from fttune.errors import ConfigError
from fttune.secrets import masked
from small_sweeps import fttune, write_sweep
from stores import free_port

SECRET = "pa55-w0rd"
ADDRESSES = [
    f"https://user:{SECRET}@host",
    f"https://{SECRET}@host/path",
    f"postgresql+psycopg://user:{SECRET}@host:5432/mlflow",
    f"postgresql://host/mlflow?user=me&password={SECRET}",
    f"http://user:{SECRET}@[host",
    f"https://user:{SECRET}/@host",
    f"https://user:{SECRET} and more@host:5000",
    f"postgresql://host/mlflow?user=me;password={SECRET}",
    f"postgresql://host/mlflow?sslpassword={SECRET}",
    f"mssql://host/mlflow?PASSWD={SECRET}&driver=odbc",
    f"https://host/mlflow?access_token={SECRET}",
    f"https://host/mlflow?api_key={SECRET}",
]


@pytest.mark.parametrize("uri", ADDRESSES)
def test_a_sweep_file_with_credentials_is_refused_without_repeating_them(tmp_path: Path, uri: str) -> None:
    sweep = write_sweep(tmp_path, tracking={"uri": uri})
    with pytest.raises(ConfigError, match=r"small\.yaml: tracking\.uri: .* come from the environment") as caught:
        load_sweep(sweep)
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="come from the environment") as caught:
        load_sweep(write_sweep(tmp_path), [f"tracking.uri={uri}"])
    assert SECRET not in str(caught.value)


def test_the_command_line_refuses_credentials_in_one_line(tmp_path: Path) -> None:
    done = fttune("run", write_sweep(tmp_path, tracking={"uri": ADDRESSES[0]}))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert SECRET not in done.stderr


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000",
        "sqlite:////home/me@work/mlflow.db",
        "file:///home/me@work/mlruns",
        "postgresql://host/mlflow",
        "postgresql://host/mlflow?sslmode=verify-full&sslkey=/etc/client.key",
    ],
)
def test_an_address_without_credentials_is_taken_and_shown_as_it_is(tmp_path: Path, uri: str) -> None:
    assert load_sweep(write_sweep(tmp_path, tracking={"uri": uri})).tracking.uri == uri
    assert masked(f"the tracker {uri} sleeps") == f"the tracker {uri} sleeps"


@given(st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1))
def test_whatever_the_password_is_it_is_masked(password: str) -> None:
    assert masked(f"see http://user:{password}@host/a now") == "see http://***@host/a now"


def test_an_address_of_the_environment_may_hold_credentials_and_shows_none(tmp_path: Path) -> None:
    uri = f"http://user:{SECRET}@127.0.0.1:{free_port()}"
    done = fttune("status", write_sweep(tmp_path), MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == f"error: the tracker {masked(uri)} does not answer: connection refused"
    assert SECRET not in fttune("doctor", MLFLOW_TRACKING_URI=uri).stdout
