"""One embedding server: the SDK's client, and the only policy of waiting and trying again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from undrift.embedders._openai_answer import read_answer
from undrift.embedders._openai_errors import PassingFault, gave_up, next_wait, status_error
from undrift.embedders.options import (
    OFFICIAL_URL,
    EmbedderOptions,
    checked_address,
    checked_key,
    is_official,
)
from undrift.errors import ConfigError

if TYPE_CHECKING:
    from openai import OpenAI

DEADLINE_SECONDS: Final = 300.0
"""No further attempt begins when this much time has gone into the same texts."""

_WAIT_INITIAL_SECONDS = 0.5
_WAIT_MAX_SECONDS = 30.0  # eight attempts then cover a minute, by which providers count
_WAIT_JITTER_SECONDS = 1.0
_WAIT_SLICE_SECONDS = 0.1  # how late a wait notices that nobody waits for its end any more

_log = logging.getLogger(__name__)


class Endpoint:
    """Where one model is served.

    Args:
        dimension: components that a vector must have.
        sent_dimension: what is asked of the server; None to leave it to the model.

    Safety:
        Any number of threads may share one. It can be used again after `close`.
    """

    def __init__(
        self,
        model: str,
        options: EmbedderOptions,
        *,
        dimension: int,
        sent_dimension: int | None = None,
    ) -> None:
        self._model = model
        self._options = options
        self._dimension = dimension
        self._sent_dimension = sent_dimension
        self._base_url = checked_address(options.base_url or OFFICIAL_URL)
        self._client: OpenAI | None = None
        self._opening = threading.Lock()
        self._is_down = False

    def ask(
        self, texts: Sequence[str], *, go_on: Callable[[], None] = lambda: None
    ) -> NDArray[np.float64]:
        """The vectors of *texts*, which fit into one request.

        After a server has exhausted every attempt it is asked only once at a time until it answers
        again: a run over a thousand owners must not wait a thousand minutes.

        Args:
            go_on: called before each attempt and several times a second in between; what it raises
                is raised.

        Shape:
            ``(len(texts), dimension)``, in order.

        Raises:
            ConfigError: the key, the model, the address, the dimension or the credit is not good.
            TextRefused: the server does not take these texts.
            EmbeddingFailed: no usable answer, after every attempt.
        """
        client = self._opened()
        import stamina

        # Past a host program's own handlers, stamina's warnings would reach a terminal by
        # logging's last resort, in the middle of what the command line prints there.
        logging.getLogger("stamina").addHandler(_NOWHERE)
        attempts = 1 if self._is_down else self._options.max_attempts
        made = 0
        wait = _Wait()
        try:
            for attempt in stamina.retry_context(
                on=wait.is_granted, attempts=attempts, timeout=DEADLINE_SECONDS
            ):
                _pause(0.0 if stamina.is_testing() else wait.seconds, go_on)
                with attempt:
                    made = attempt.num
                    rows = self._request(client, texts)
        except PassingFault as fault:
            self._is_down = True
            raise gave_up(fault, attempts=made) from None
        self._is_down = False
        return rows

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        with self._opening:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _request(self, client: OpenAI, texts: Sequence[str]) -> NDArray[np.float64]:
        from openai import APIConnectionError, APIStatusError, APITimeoutError, omit

        try:
            answer = client.embeddings.with_raw_response.create(
                model=self._model,
                input=list(texts),
                # The SDK's own choice is base64, which not every compatible server knows.
                encoding_format="float",
                dimensions=self._sent_dimension or omit,
            )
        # None of these goes on as a cause: their messages and requests hold texts and keys.
        except APIStatusError as exc:
            codes = {"code": exc.code, "type": exc.type, "param": exc.param}
            raise status_error(
                exc.status_code,
                {name: value for name, value in codes.items() if isinstance(value, str)},
                exc.response.headers,
                model=self._model,
            ) from None
        except APITimeoutError:
            seconds = self._options.timeout_seconds
            raise PassingFault(f"it did not answer within {seconds:g} s") from None
        except APIConnectionError as exc:
            kind = type(exc.__cause__ or exc).__name__
            raise PassingFault(f"the connection failed ({kind})") from None
        return read_answer(
            answer.content, texts=len(texts), dimension=self._dimension, model=self._model
        )

    def _opened(self) -> OpenAI:
        with self._opening:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def _new_client(self) -> OpenAI:
        try:
            import stamina  # noqa: F401  missing parts are told before anything is sent
            from openai import OpenAI
        except ImportError as exc:
            raise ConfigError(
                "What openai:… needs is not installed",
                why=f"the package {exc.name} is missing in this Python environment.",
                fix="run `pip install 'undrift[openai]'`",
            ) from exc
        api_key = checked_key(self._options.api_key or "")
        variable = self._options.key_variable
        if not api_key and (variable or is_official(self._base_url)):
            variable = variable or "OPENAI_API_KEY"
            raise ConfigError(
                f"{variable} is not set",
                why=f"it is to hold the key of the server that embeds with {self._model}.",
                fix=f"export {variable}=…, or name another variable under [embedder]: "
                "api_key = 'env:NAME'",
            )
        return OpenAI(
            # The SDK wants a key even for servers that want none, and looks for one by itself.
            api_key=api_key or "none",
            base_url=self._base_url,
            timeout=self._options.timeout_seconds,
            max_retries=0,
        )


class _Wait:
    """The wait before the next attempt, as a stamina backoff hook that is not to wait itself.

    stamina counts attempts and time. Its own wait cannot be ended: a process would live on in it
    for a minute after its last line.

    Attributes:
        seconds: how long to wait; 0 before the first attempt.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._backoff_seconds = _WAIT_INITIAL_SECONDS

    def is_granted(self, exc: Exception) -> bool | float:
        """False if another attempt is not worth while, else 0 for “at once”."""
        asked = next_wait(exc)
        if isinstance(exc, PassingFault):
            said = "" if exc.wait_seconds is None else f", and asks to wait {exc.wait_seconds:g} s"
            _log.info(
                "No vectors from the embedding server: %s%s",
                exc.reason,
                said,
                extra={"action": "embed", "wait_seconds": exc.wait_seconds},
            )
        if asked is False:
            return False
        self.seconds = self._next_backoff() if asked is True else asked
        return 0.0

    def _next_backoff(self) -> float:
        jitter = random.uniform(0, _WAIT_JITTER_SECONDS)  # noqa: S311  nothing is kept secret by it
        seconds = min(self._backoff_seconds + jitter, _WAIT_MAX_SECONDS)
        self._backoff_seconds *= 2
        return seconds


def _pause(seconds: float, go_on: Callable[[], None]) -> None:
    ends_at = time.monotonic() + seconds
    go_on()
    while (left := ends_at - time.monotonic()) > 0:
        time.sleep(min(left, _WAIT_SLICE_SECONDS))
        go_on()


_NOWHERE = logging.NullHandler()
