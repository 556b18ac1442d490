"""The proxy that the environment names for a connection: one rule for WebSockets, HTTP, and MQTT clients. No I/O.

    SCHEME_proxy, socks_proxy, https_proxy, http_proxy, all_proxy     first of these, in either case; no_proxy: none

`https_proxy` and `http_proxy` also serve WebSockets, `http_proxy` only those without TLS. Loopback hosts are reached
directly. MQTT uses only SOCKS proxies, and ignores others. SOCKS needs the extra `socks`.
"""

from importlib.util import find_spec
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.lazy import installing

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SOCKS = ("socks5h", "socks5", "socks4a", "socks4")
SOCKS_PORT = 1080
_VARIABLES = {
    "ws": ("ws", "socks", "https", "http", "all"),
    "wss": ("wss", "socks", "https", "all"),
    "http": ("http", "socks", "all"),
    "https": ("https", "socks", "all"),
    "mqtt": ("mqtt", "socks", "all"),
    "mqtts": ("mqtts", "mqtt", "socks", "all"),
}
_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883}
_LIBRARIES = {"w": "python_socks", "h": "socksio", "m": "socks"}
"""First letter of a URL's scheme -> the library that its client needs for SOCKS."""


def proxy_for(url: str) -> str | None:
    """The URL of the environment's proxy for a server or broker. Raises ConfigError for one that cannot be used."""
    server = urlsplit(url)
    host = server.hostname or ""
    if host in LOOPBACK or proxy_bypass(f"{host}:{server.port or _PORTS[server.scheme]}"):
        return None
    proxies = getproxies()
    name = next((name for name in _VARIABLES[server.scheme] if proxies.get(name)), None)
    if name is None:
        return None
    proxy = proxies[name]
    try:
        split = _checked(proxy, name)
        if split.scheme.startswith("socks4") and server.scheme.startswith("http"):
            raise ValueError(f"scheme {split.scheme} does not carry HTTP")
    except ValueError as error:
        raise ConfigError(
            f"the proxy, {shown(proxy)!r}, that the environment names in {name}_proxy cannot be used ({error}): use"
            f" one like http://HOST:PORT or socks5://HOST:PORT, or set NO_PROXY={host}"
        ) from None
    if split.scheme in SOCKS and find_spec(_LIBRARIES[server.scheme[0]]) is None:
        raise ConfigError(
            f"the environment names a SOCKS proxy, {shown(proxy)}: {installing('socks')}, or set NO_PROXY={host}"
        )
    if server.scheme.startswith("mqtt") and split.scheme not in SOCKS:
        return None
    return split.geturl()


def _checked(proxy: str, name: str) -> SplitResult:
    """The parsed proxy, with its port. Raises ValueError with the reason."""
    if "://" not in proxy:
        proxy = f"{'socks5h' if name == 'socks' else 'http'}://{proxy}"
    try:
        split = urlsplit(proxy)
    except ValueError:  # whose message may contain the password
        raise ValueError("it is not a valid URL") from None
    if name == "socks" and split.scheme == "http":  # as operating systems name them
        split = split._replace(scheme="socks5h")
    if split.scheme not in (*SOCKS, "https", "http"):
        raise ValueError(f"scheme {split.scheme} is unknown")
    if not split.hostname:
        raise ValueError("it has no host")
    if split.username is not None and split.password is None:
        raise ValueError("it has a user but no password")
    try:
        for part in (split.username, split.password):
            unquote(part or "", errors="strict")
    except UnicodeDecodeError:
        raise ValueError("its user or password is not UTF-8") from None
    if split.path not in ("", "/") or split.query or split.fragment:
        raise ValueError("it has more than a host and a port")
    if split.port is None and split.scheme in SOCKS:
        split = split._replace(netloc=f"{split.netloc}:{SOCKS_PORT}")
    return split._replace(path="")


def shown(proxy: str) -> str:
    """A proxy without user and password."""
    return proxy.rpartition("@")[2]
