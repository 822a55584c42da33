"""Whether a running Ray cluster would have us, asked once: Ray itself goes on trying for a minute or two."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Ray has no stubs for these, nor a public way to ask a cluster anything before joining it.
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import AuthenticationError, RpcError

from fttune.errors import UnreachableError, UsageError

_PATIENCE = 5.0  # seconds


def seek_admission(address: str) -> None:
    """Find the cluster at HOST:PORT, and show this machine's token from now on if the cluster asks for one.

    UsageError when the address is none, UnreachableError within seconds when nothing answers or the token is not its.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--address: a Ray cluster is auto or HOST:PORT, not '{address}'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise UnreachableError(f"no Ray cluster at {address}: {error.strerror or error}") from None
    if _admits(address):
        return
    if "RAY_AUTH_MODE" not in os.environ and AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        # Ray shows no token to an address that it was given, unless told to; it has read its settings on import.
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")
        if _admits(address):
            return
    raise UnreachableError(
        f"the Ray cluster at {address} asks for a token, and this machine has none or another; what"
        " `ray get-auth-token` prints on its head belongs into ~/.ray/auth_token or RAY_AUTH_TOKEN here"
    )


def _admits(address: str) -> bool:
    try:
        with _hushed():
            GcsClient(address=address).check_alive([], timeout=_PATIENCE)
    except AuthenticationError:
        return False
    except RpcError as error:
        raise UnreachableError(f"no Ray cluster at {address}: {str(error).splitlines()[0]}") from None
    return True


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray's core writes a refusal to the process's stderr, past Python; here it is an answer."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
