"""The HTTP side of one endpoint: opens a stream, sorts failures, never lets the key out.

Owns the client, the key and the reading of statuses. Does not know contexts or rules.
"""

import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx2

from aios.config import CoreSettings
from aios.errors import ConfigError
from aios.remote.failures import BUSY, LOST, SLOW, TLS, UNREACHABLE, Malformed, Rejected, Unavailable
from aios.remote.stream import EventReader

_EXCERPT_BYTES = 2000
_DRAIN_S = 0.25
_NO_STREAMS = ("text/html", "application/json")
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 529})


class Endpoint:
    """One endpoint by its settings. Raises ConfigError when the variable with its key is not set."""

    def __init__(self, name: str, settings: CoreSettings) -> None:
        self.name, self.settings = name, settings
        self._key = _key(name, settings)
        headers = {"accept": "text/event-stream", "accept-encoding": "identity"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        timeout = httpx2.Timeout(settings.silence_s, connect=settings.connect_s)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.concurrency)
        self._http = httpx2.AsyncClient(
            base_url=settings.url.rstrip("/") + "/", headers=headers, timeout=timeout, limits=limits
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[list[dict[str, Any]]]]:
        """Send a request; yield an iterator over batches of events. Raises Unavailable, Rejected, Malformed."""
        try:
            async with self._http.stream("POST", "chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise await self._refusal(response)
                self._check_form(response)
                async with aclosing(_events(response)) as events:
                    yield events
        except httpx2.TimeoutException as error:
            raise Unavailable(f"{self._who}: silent for too long ({type(error).__name__})", SLOW) from error
        except (httpx2.ConnectError, httpx2.UnsupportedProtocol) as error:
            if _is_tls(error):
                raise Rejected(
                    f"{self._who}: no secure connection ({error}); is the certificate right?", TLS
                ) from error
            raise Unavailable(f"{self._who}: no connection ({error}); is it running?", UNREACHABLE) from error
        except httpx2.RemoteProtocolError as error:
            raise Unavailable(f"{self._who}: the connection broke or is no HTTP ({error})", LOST) from error
        except httpx2.TransportError as error:
            raise Unavailable(f"{self._who}: the connection was lost ({type(error).__name__})", LOST) from error

    @property
    def _who(self) -> str:
        return f"core {self.name!r}"

    def _check_form(self, response: httpx2.Response) -> None:
        """Raises Malformed for what is surely no stream of events: a page, one object, what would have to be unpacked.

        (A body is read as it comes and never unpacked: a bomb stays packed.)
        """
        kind, packed = response.headers.get("content-type", ""), response.headers.get("content-encoding", "identity")
        if packed != "identity":
            raise Malformed(f"{self._who}: an answer packed by {packed[:40]!r}, which was not asked for")
        if kind.startswith(_NO_STREAMS):
            raise Malformed(f"{self._who}: an answer of type {kind[:40]!r} instead of a stream of events")

    async def _refusal(self, response: httpx2.Response) -> Exception:
        status, said = response.status_code, await self._excerpt(response)
        told = f"{self._who}: HTTP {status}{': ' + said if said else ''}"
        if status in _TRANSIENT_STATUS:
            return Unavailable(told, BUSY, _retry_after(response.headers.get("retry-after")))
        if status in (401, 403):
            variable = self.settings.key or "none; name one with the setting `key`"
            return Rejected(f"{told} (the key comes from the environment variable {variable})", "E-REMOTE-KEY")
        if response.has_redirect_location:
            return Rejected(f"{told} (it redirects; the key goes to no other address: set `url` to the right one)")
        if status == 404:
            return Rejected(f"{told} (model {self.settings.model!r}; the url must end before /chat/completions)")
        return Rejected(told)

    async def _excerpt(self, response: httpx2.Response) -> str:
        """The beginning of an error's body, on one line; an echoed key is blotted out."""
        kept = b""
        async with aclosing(response.aiter_raw()) as pieces:
            async for piece in pieces:
                kept += piece[:_EXCERPT_BYTES]
                if len(kept) >= _EXCERPT_BYTES:
                    break
        text = " ".join(kept.decode("utf-8", "replace").split())
        text = text.replace(self._key, "***") if self._key else text  # before the cut, which could halve it
        return text[:300]


async def _events(response: httpx2.Response) -> AsyncGenerator[list[dict[str, Any]], None]:
    reader = EventReader()
    async with aclosing(response.aiter_raw()) as pieces:
        async for piece in pieces:
            found = reader.feed(piece)
            if found:
                yield found
            if reader.is_done:
                with anyio.move_on_after(_DRAIN_S):  # a connection that is read to its end can be used again
                    async for _ in pieces:
                        pass
                return


def _is_tls(error: BaseException | None) -> bool:
    """Whether the connection failed for its encryption: no other try will fare better."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def _key(name: str, settings: CoreSettings) -> str:
    if not settings.key:
        return ""
    found = os.environ.get(settings.key, "").strip()
    if not found:
        raise ConfigError(f"core {name!r}: environment variable {settings.key} is not set; it must hold the API key")
    if re.search(r"[^\x21-\x7e]", found):
        raise ConfigError(f"core {name!r}: the value of {settings.key} has characters that no key has")
    return found


def _retry_after(value: str | None) -> float | None:
    """Read seconds or a date; None for what is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
