"""How many tokens a text has, without the model's tokenizer.

OpenAI's own, tiktoken, downloads its tables when it is first used; a sync should not hang on that.
"""

from __future__ import annotations

_MARKER_TOKENS = 8  # what models put around a text


def estimated_tokens(text: str) -> int:
    """A cautious estimate: prose has fewer, only long runs of rare signs have more.

    Three ASCII characters a token (English prose has 4 to 5, code 3), two bytes a token in every
    other script (Cyrillic has 3 to 4, Chinese 2 to 3, emoji 1 to 2).
    """
    if text.isascii():
        return -(-len(text) // 3)
    ascii_characters = len(text.encode("ascii", "ignore"))
    other_bytes = len(text.encode("utf-8")) - ascii_characters
    return -(-ascii_characters // 3) + -(-other_bytes // 2)


def cut_to_estimate(text: str, max_tokens: int) -> str:
    """The longest beginning of *text* that is estimated at *max_tokens* or fewer."""
    if estimated_tokens(text) <= max_tokens:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if estimated_tokens(text[:middle]) <= max_tokens:
            fits = middle
        else:
            too_long = middle
    return text[:fits]


def cut_to_certainty(text: str, max_tokens: int) -> str:
    """A beginning of *text* that has at most *max_tokens* whatever the tokenizer.

    No token of any byte-level or byte-fallback tokenizer is shorter than a byte.
    """
    limit = max(1, max_tokens - _MARKER_TOKENS)
    return text.encode("utf-8")[:limit].decode("utf-8", "ignore")
