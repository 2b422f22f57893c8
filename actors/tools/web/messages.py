"""A request of a tool to the web, and what came back."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class WebRequest:
    """One request.

    Attributes:
        headers: part of what the request asks for, and of its cache entry.
        secret_headers: keys; sent, but never kept, logged or shown.
    """

    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys themselves, without a scheme such as ``Bearer``."""
        return tuple(value.rpartition(" ")[2] for value in self.secret_headers.values() if value)


@dataclass(frozen=True, kw_only=True, slots=True)
class WebResponse:
    """One answer, with its whole body.

    Attributes:
        url: where it came from in the end, after redirects.
        content_type: of the header, e.g. ``text/html; charset=utf-8``; may be empty.
        location: where a redirect points that was not followed; else empty.
    """

    status: int
    url: str
    content_type: str
    body: bytes
    location: str = ""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300
