"""Settings of a server, and the bearer keys that it accepts."""

import hashlib
import hmac
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from kikitori.errors import ConfigError
from kikitori.server.uploads import UploadLimits

FORM_BYTES = 128 * 1024  # of a request beside the recording in it


class Keys:
    """Bearer keys, held as digests; a comparison takes as long whatever is right about it."""

    def __init__(self, keys: frozenset[str]) -> None:
        self._digests = [_digest(key) for key in sorted(keys)]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, key: str) -> bool:
        """Whether this is one of them."""
        digest = _digest(key)
        return any([hmac.compare_digest(digest, each) for each in self._digests])  # noqa: C419 all are compared


NO_KEYS = Keys(frozenset())


@dataclass(frozen=True)
class Settings:
    """How a server is to behave.

    Attributes:
        host: Address to listen at.
        port: Port.
        keys: Bearer keys, one of which every request must have; none asks for none.
        insecure: Whether other machines may use it without a key.
        uploads: Limits of uploads.
        upload_seconds: For a request's body to arrive.
        deadline_seconds: From then to the answer.
        most_requests: Transcriptions at a time, whatever their length.
        most_live: Live connections at a time.
        live_seconds: Longest live connection.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Keys = NO_KEYS
    insecure: bool = False
    uploads: UploadLimits = field(default_factory=UploadLimits)
    upload_seconds: float = 60.0
    deadline_seconds: float = 600.0
    most_requests: int = 64
    most_live: int = 8
    live_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if not (self.loopback or self.keys or self.insecure):
            what = "without a key everybody could use the server"
            raise ConfigError(what, where=f"--host {self.host}", remedy="give --keys FILE, or --insecure")

    @property
    def max_body_bytes(self) -> int:
        """Of a request."""
        return self.uploads.max_bytes + FORM_BYTES

    @property
    def loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_keys(path: Path) -> Keys:
    """Keys from a file, one a line; empty lines and those that begin with # do not count.

    Raises:
        ConfigError: It cannot be read, or holds none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({type(error).__name__})", where=path, remedy="check the path") from None
    keys = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise ConfigError("holds no key", where=path, remedy="write one a line")
    return Keys(keys)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
