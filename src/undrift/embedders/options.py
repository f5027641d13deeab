"""How an embedder is reached and what it is to give, as far as its name does not say it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from undrift.errors import ConfigError

OFFICIAL_URL = "https://api.openai.com/v1"
DEFAULT_MAX_TEXT_TOKENS = 8191
"""What OpenAI's models read of a text."""

_OFFICIAL_HOST = "api.openai.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderOptions:
    """What ``[embedder]`` says beside the name; all but ``dimension`` concern ``openai:…`` only.

    Attributes:
        base_url: a server that speaks OpenAI's protocol; None means OpenAI's own.
        api_key: None where the server asks for none.
        key_variable: the environment variable that the key was to come from, if one was named;
            then it must be there when something is embedded.
        dimension: components per vector; None means what the model is known to make.
        batch_texts: texts in one request, at most, the one that is sent twice included. OpenAI
            takes 2,048.
        timeout_seconds: for one request.
        max_attempts: requests for the same texts before giving up.
        max_text_tokens: how much of a text the model reads; what goes beyond is cut off before it
            is sent.
        document_prefix: stands before every stored text, such as ``"passage: "`` for E5.
        query_prefix: stands before every query, such as ``"query: "`` for E5.
        revision: a word for the weights behind the model's name, if the server's host is not
            enough to tell them: it takes the host's place in the model's identity.
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    key_variable: str | None = None
    dimension: int | None = None
    batch_texts: int = 256
    timeout_seconds: float = 30.0
    max_attempts: int = 8
    max_text_tokens: int = DEFAULT_MAX_TEXT_TOKENS
    document_prefix: str = ""
    query_prefix: str = ""
    revision: str = ""


def with_openai_variables(options: EmbedderOptions, environ: Mapping[str, str]) -> EmbedderOptions:
    """*options* with what ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` add.

    The key goes to OpenAI, or to the server that the variable beside it names. It is never sent to
    a server that only undrift's own settings name: that would hand it to a third party.
    """
    base_url, api_key = options.base_url, options.api_key
    is_meant = base_url is None or is_official(base_url)
    if base_url is None:
        base_url = environ.get("OPENAI_BASE_URL", "").strip() or None
    if api_key is None and options.key_variable is None and is_meant:
        api_key = environ.get("OPENAI_API_KEY", "").strip() or None
    return replace(options, base_url=base_url, api_key=api_key)


def is_official(base_url: str) -> bool:
    """Whether OpenAI itself answers at *base_url*; its regions serve the same models."""
    host = _hostname(base_url)
    return host == _OFFICIAL_HOST or host.endswith("." + _OFFICIAL_HOST)


def host_in_identity(base_url: str | None) -> str:
    """Who serves a model, for its identity; empty for OpenAI.

    One name may stand for other weights on another server, so the host is part of it. The port is
    not: a server on this machine may get another one with every start.
    """
    if base_url is None or is_official(base_url):
        return ""
    host = _hostname(base_url)
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return "localhost" if is_here else host


def checked_address(base_url: str) -> str:
    """*base_url*, if it is one; it is never repeated in an error, since it may hold a password.

    Raises:
        ConfigError: it is no HTTP address, or holds more than an address.
    """
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # read for its check
    except ValueError:
        is_address = False
    if not is_address:
        raise _unusable_address("it does not read http://host/path or https://host/path.")
    if parts.username is not None or parts.password is not None:
        raise _unusable_address(
            "it holds a user name or a password; the server gets the API key instead."
        )
    if parts.query or parts.fragment:
        raise _unusable_address("it goes on behind the path, with '?' or '#'.")
    return base_url


def checked_key(api_key: str) -> str:
    """*api_key* without the blanks around it.

    Raises:
        ConfigError: no HTTP header can carry it.
    """
    key = api_key.strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError(
            "The embedding server's key is not usable",
            why="it holds characters that no HTTP header can carry, such as a line break.",
            fix="set the key again, in OPENAI_API_KEY or in the variable that api_key names",
        )
    return key


def _hostname(base_url: str) -> str:
    return (urlsplit(base_url).hostname or "").lower()


def _unusable_address(why: str) -> ConfigError:
    return ConfigError(
        "The embedding server's address is not usable",
        why=why,
        fix="write UNDRIFT_EMBEDDER__BASE_URL=https://host/v1, or base_url under [embedder], and "
        "the key with api_key = 'env:NAME'",
    )
