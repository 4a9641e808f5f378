"""What stands between a list of addresses from the web and this network.

An opener for urllib that speaks http and https and nothing else, connects to public hosts only
(the address it checked is the address it connects to, so a name cannot change in between, and
every redirect is checked again), and gives every request a deadline, connecting included, and
every response a size it cannot exceed, headers included. Proxies are not used: behind one, nobody
could say where a name leads.

A TLS handshake may take `timeout` seconds in all. Not ours to bound: how long the system's
resolver takes for a name (by itself, about ten seconds for each of its servers).
"""

import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ovseg.errors import DownloadError, UsageError
from ovseg.version import __version__

_AGENT = f"ovseg/{__version__}"
PRIVATE = "private address"  # why nothing of this network is fetched without leave
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not of the public internet, though not every version of Python says so.
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays to IPv6
        "64:ff9b:1::/48",  # translation within a network
        "100::/63",  # discarded
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # sites, as they once were
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)  # before an IPv4 address in the lower half


@dataclass(frozen=True)
class FetchOptions:
    """Bounds of one request; `threads` requests run at once in each process."""

    allow_private_hosts: bool = False
    timeout: float = 10.0  # seconds without a byte
    deadline: float = 60.0  # seconds from connecting to the last byte; redirects begin anew
    max_bytes: int = 30_000_000
    threads: int = 64

    def __post_init__(self) -> None:
        if min(self.timeout, self.deadline, self.max_bytes, self.threads) <= 0:
            raise UsageError("time-outs, sizes and threads must be positive")


class RefusedError(OSError):
    """A request or response that the guard does not let through; the message is the reason."""


def build_opener(options: FetchOptions) -> urllib.request.OpenerDirector:
    """An opener with the guard's handlers and no others (no files, FTP, data or proxies)."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Http(options),
        _Https(options),
    ):
        opener.add_handler(handler)
    return opener


def fetch(url: str, options: FetchOptions) -> bytes:
    """What lies at an address.

    Raises:
        DownloadError: it cannot be had, or the guard does not let it through; says why.
    """
    try:
        request = urllib.request.Request(ascii_address(url), headers={"User-Agent": _AGENT})
        with build_opener(options).open(request, timeout=options.timeout) as response:
            content: bytes = response.read()
            return content
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DownloadError(f"{url}: cannot be fetched ({reason_of(str(error))})") from error


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, looked at through IPv6 wrappings."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64 or int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def ascii_address(url: str) -> str:
    """A URL as it may be sent: letters beyond ASCII encoded, in the host as IDNA.

    What is no URL comes back as it is; the request for it fails and is counted.
    """
    url = url.replace(" ", "%20")
    if url.isascii():
        return url
    try:
        parts = urlsplit(url)
        host = parts.netloc.encode("idna").decode("ascii")
    except ValueError:
        return url
    rest = (quote(part, safe="%/:=&?~#+!$,;'@()*[]") for part in parts[2:])
    return urlunsplit((parts.scheme, host, *rest))


def _connect(host: str, port: int, options: FetchOptions, end: float) -> socket.socket:
    """A connection to `host`, if all its addresses are public; to one that was checked.

    `end` is when the request has to be over, by the monotonic clock.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not options.allow_private_hosts and not all(is_public(str(entry[4][0])) for entry in found):
        raise RefusedError(PRIVATE)
    failure: OSError = RefusedError("host not found")
    for family, kind, protocol, _, address in found:
        left = _left(end)
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(min(options.timeout, left))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _left(end: float) -> float:
    """Seconds until then; RefusedError if there are none."""
    left = end - time.monotonic()
    if left <= 0:
        raise RefusedError("response too slow")
    return left


class _Bounded(io.RawIOBase):
    """The bytes of a connection, until the deadline or the limit."""

    def __init__(
        self, raw: io.RawIOBase, connection: Any, options: FetchOptions, end: float
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._timeout = options.timeout
        self._end = end
        self._left = options.max_bytes + (1 << 16)  # headers come through here too

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(min(self._timeout, _left(self._end)))
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError:
            if time.monotonic() >= self._end:
                raise RefusedError("response too slow") from None
            raise
        self._left -= count or 0
        if self._left < 0:
            raise RefusedError("file too large")
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _response_class(options: FetchOptions, end: float) -> type[http.client.HTTPResponse]:
    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
            super().__init__(sock, *arguments, **named)
            self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock, options, end))

        def begin(self) -> None:
            super().begin()
            _judge_headers(self, options)

    return Response


def _judge_headers(response: http.client.HTTPResponse, options: FetchOptions) -> None:
    """Refuse by the headers what need not be read: too long, a web page, or reserved."""
    if response.status != 200:
        return
    if response.length is not None and response.length > options.max_bytes:
        raise RefusedError("file too large")
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise RefusedError("a web page, not an image")
    # TDMRep, the W3C's reservation against mining; X-Robots-Tag is img2dataset's to judge.
    if response.headers.get("TDM-Reservation", "").strip() == "1":
        raise RefusedError("opted out")


class _Http(urllib.request.HTTPHandler):
    def __init__(self, options: FetchOptions) -> None:
        super().__init__()
        self._options = options

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        options, end = self._options, time.monotonic() + self._options.deadline

        class Connection(http.client.HTTPConnection):
            response_class = _response_class(options, end)

            def connect(self) -> None:
                self.sock = _connect(self.host, self.port, options, end)

        return self.do_open(Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, options: FetchOptions) -> None:
        super().__init__()
        self._options = options
        self._tls = ssl.create_default_context()

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        options, tls = self._options, self._tls
        end = time.monotonic() + options.deadline

        class Connection(http.client.HTTPSConnection):
            response_class = _response_class(options, end)

            def connect(self) -> None:
                plain = _connect(self.host, self.port, options, end)
                try:
                    plain.settimeout(min(options.timeout, _left(end)))
                    self.sock = tls.wrap_socket(plain, server_hostname=self.host)
                except BaseException:
                    plain.close()
                    raise

        return self.do_open(Connection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5
    max_repeats = 2


_REASONS = (
    (r"HTTP Error 30\d.*(not allowed|infinite loop)", "bad redirect"),
    (r"HTTP Error (\d{3})", "HTTP {}"),
    (
        r"(private address|response too slow|file too large|opted out|a web page, not an image)",
        "{}",
    ),
    (r"X-Robots-Tag", "opted out"),
    (r"unknown url type", "not http or https"),
    (
        r"host not found|Name or service|name resolution|nodename|getaddrinfo|No address",
        "host not found",
    ),
    (r"CERTIFICATE|SSL|TLS|certificate", "TLS failure"),
    (r"timed out|timeout", "timed out"),
    (r"refused|reset|unreachable|closed|Broken pipe|Remote end", "connection failed"),
    (r"IncompleteRead", "connection failed"),
    (r"URL can't contain|no host given|port|Invalid|codec|label|idna", "malformed address"),
)


def reason_of(message: str) -> str:
    """The reason, from a small set, that a failed request is counted under."""
    for pattern, reason in _REASONS:
        if found := re.search(pattern, message):
            return reason.format(*found.groups())
    return "other network failure"
