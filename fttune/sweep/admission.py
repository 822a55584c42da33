"""Entry to a running Ray cluster: whether it would have us, asked once."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Ray has no stubs for these, nor a public way to ask a cluster anything before joining it.
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import AuthenticationError, RpcError

from fttune.errors import UnreachableError, UsageError

_PATIENCE = 5.0  # seconds
_MODE = "RAY_AUTH_MODE"
# What a client of HTTP/2, so of gRPC, begins with: the preface, and a frame of type 4 with no settings in it.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def seek_admission(address: str) -> str:
    """The cluster's HOST:PORT; this machine's token is shown from now on if the cluster asks for one.

    UsageError when the address is none; UnreachableError within seconds when no cluster answers or the token is not
    its own.
    """
    address = _found(address)
    _knock(address)
    # A process that has looked for its token cannot work with a cluster that asks for none, so it looks when refused.
    told = os.environ.get(_MODE, "").lower() == "token"
    admitted = not (told and not _has_token()) and _admits(address)  # without a token Ray would end the process
    if not admitted and _MODE not in os.environ and _has_token():
        # Ray shows no token to an address that it was given, unless told to, and it was told when it was imported.
        os.environ[_MODE] = "token"
        Config.initialize("")
        admitted = _admits(address)
    if not admitted:
        here = "another, or it may not be shown" if _has_token() else "none"
        raise UnreachableError(
            f"the Ray cluster at {address} takes the token that `ray get-auth-token` prints on its head; here is {here}"
            " (~/.ray/auth_token, RAY_AUTH_TOKEN, RAY_AUTH_MODE)"
        )
    return address


def _found(address: str) -> str:
    if address == "auto":
        try:
            return canonicalize_bootstrap_address_or_die(address)
        except ConnectionError:
            raise UnreachableError("no Ray cluster on this machine; --address takes auto or HOST:PORT") from None
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--address: a Ray cluster is auto or HOST:PORT, not '{address}'")
    return address


def _knock(address: str) -> None:
    """Make sure that something there speaks as Ray does; Ray's own client would wait 40 s for the answer."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as line:
            line.sendall(_GREETING)
            answer = line.recv(9)
    except UnicodeError:
        raise UsageError(f"--address: a Ray cluster is auto or HOST:PORT, but {host} is no name of a host") from None
    except OSError as error:
        raise UnreachableError(f"no Ray cluster at {address}: {error.strerror or error}") from None
    if answer[3:4] != b"\4":
        raise UnreachableError(f"no Ray cluster at {address}: what answers there is something else (its dashboard?)")


def _has_token() -> bool:
    return AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)


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
