"""What is known of an ``openai:…`` embedder before anything is sent."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undrift.config import Settings, embedder_options, load_settings
from undrift.embedders import open_embedder
from undrift.embedders._openai_errors import PassingFault, next_wait, retry_after_seconds
from undrift.embedders._tokens import cut_to_certainty, cut_to_estimate, estimated_tokens
from undrift.embedders.openai import OpenAIEmbedder
from undrift.embedders.options import EmbedderOptions
from undrift.errors import ConfigError, EmbeddingFailed

SECRET = "sk-hunter2"
SMALL = "text-embedding-3-small"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is found but those that a test writes."""
    monkeypatch.chdir(tmp_path)


def settings(toml: str = "", **environ: str) -> Settings:
    """The settings of this file and this environment."""
    Path("undrift.toml").write_text(toml, encoding="utf-8")
    return load_settings(environ=environ)


def identity(model: str, **options: object) -> str:
    """The identity of a model with these options."""
    return OpenAIEmbedder(model, EmbedderOptions(**options)).model  # type: ignore[arg-type]


# --- identity ---------------------------------------------------------------------------------


def test_known_models_need_no_dimension() -> None:
    """They are OpenAI's own."""
    assert identity(SMALL) == "openai/text-embedding-3-small:1536:l2"
    assert identity("text-embedding-3-large") == "openai/text-embedding-3-large:3072:l2"
    assert open_embedder("openai:text-embedding-ada-002").dimension == 1536


def test_identity_changes_with_everything_that_changes_a_vector() -> None:
    """And with nothing twice: no two of these may pass for one another."""
    here = "http://localhost:8000/v1"
    found = [
        identity("e5", base_url=here, dimension=384),
        identity("e5", base_url=here, dimension=768),
        identity("e5-large", base_url=here, dimension=384),
        identity("e5", base_url="http://models.example/v1", dimension=384),
        identity("e5", base_url=here, dimension=384, revision="2026-11"),
        identity("e5", base_url=here, dimension=384, document_prefix="passage: "),
        identity("e5", base_url=here, dimension=384, query_prefix="passage: "),
        identity("e5", base_url=here, dimension=384, document_prefix="p", query_prefix="assage: "),
        identity("e5", base_url=here, dimension=384, max_text_tokens=512),
        identity(SMALL, dimension=384),
        identity(SMALL),
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:43117/v1"),
        ("http://127.0.0.1:8000/v1", "http://localhost/v1"),
        ("http://[::1]:8000/v1", "http://localhost/v1"),
        ("https://models.example/v1", "http://MODELS.example:8080/openai/v1"),
        ("https://api.openai.com/v1", "https://eu.api.openai.com/v1"),
    ],
)
def test_identity_does_not_change_with_what_changes_no_vector(one: str, other: str) -> None:
    """A server that was started again on another port is the same."""
    assert identity("e5", base_url=one, dimension=8) == identity("e5", base_url=other, dimension=8)


def test_a_revision_lets_a_server_move() -> None:
    """It takes the host's place, so that the same weights elsewhere are the same model."""
    here = identity("e5", base_url="http://localhost/v1", dimension=8, revision="r1")
    there = identity("e5", base_url="https://models.example/v1", dimension=8, revision="r1")
    assert here == there == "openai/e5@r1:8:l2"


def test_identity_holds_no_key() -> None:
    """It is stored beside every vector, and shown."""
    embedder = OpenAIEmbedder(SMALL, EmbedderOptions(api_key=SECRET))
    assert SECRET not in embedder.model
    assert SECRET not in repr(EmbedderOptions(api_key=SECRET))


def test_a_models_name_may_hold_colons_and_slashes() -> None:
    """Ollama's tags and the hubs' organisations do."""
    options = EmbedderOptions(base_url="http://localhost/v1", dimension=8)
    assert open_embedder("openai:nomic-embed-text:v1.5", options).model.startswith(
        "openai/nomic-embed-text:v1.5@localhost"
    )
    assert open_embedder("openai:BAAI/bge-m3", options).model.startswith("openai/BAAI/bge-m3@")


# --- dimension --------------------------------------------------------------------------------


def test_an_unknown_model_needs_its_dimension() -> None:
    """A check has to know it without asking the server."""
    with pytest.raises(ConfigError) as caught:
        open_embedder("openai:bge-m3", EmbedderOptions(base_url="http://localhost/v1"))
    assert "UNDRIFT_EMBEDDER__DIMENSION" in caught.value.fix


@pytest.mark.parametrize(
    ("model", "dimension"),
    [(SMALL, 1537), (SMALL, 3072), ("text-embedding-ada-002", 512)],
)
def test_a_dimension_that_openais_model_does_not_make_is_refused(
    model: str, dimension: int
) -> None:
    """Before the first request."""
    with pytest.raises(ConfigError, match=f"no vectors of {dimension} components"):
        OpenAIEmbedder(model, EmbedderOptions(dimension=dimension))
    elsewhere = EmbedderOptions(dimension=dimension, base_url="http://localhost/v1")
    assert OpenAIEmbedder(model, elsewhere).dimension == dimension


@pytest.mark.parametrize(
    ("name", "dimension"), [("local", 768), ("hashing", 1536), ("hashing:64", 1536)]
)
def test_a_configured_dimension_that_another_embedder_does_not_make_is_refused(
    name: str, dimension: int
) -> None:
    """A setting is never just ignored where vectors would come out otherwise."""
    with pytest.raises(ConfigError, match=f"{name} makes no vectors of {dimension}"):
        open_embedder(name, EmbedderOptions(dimension=dimension))
    assert open_embedder("hashing:64", EmbedderOptions(dimension=64)).dimension == 64


# --- settings ---------------------------------------------------------------------------------


def test_the_section_of_the_file_is_read() -> None:
    """Every key."""
    found = settings(
        """
        [embedder]
        name = "openai:bge-m3"
        base_url = "env:MODELS_URL"
        api_key = "env:MODELS_KEY"
        dimension = 1024
        batch_texts = 32
        timeout_seconds = 5.5
        max_attempts = 3
        max_text_tokens = 512
        document_prefix = "passage: "
        query_prefix = "query: "
        revision = "r1"
        """,
        MODELS_URL="http://models.example/v1",
        MODELS_KEY=SECRET,
    )
    assert found.embedder == "openai:bge-m3"
    assert found.embedder_options == EmbedderOptions(
        base_url="http://models.example/v1",
        api_key=SECRET,
        key_variable="MODELS_KEY",
        dimension=1024,
        batch_texts=32,
        timeout_seconds=5.5,
        max_attempts=3,
        max_text_tokens=512,
        document_prefix="passage: ",
        query_prefix="query: ",
        revision="r1",
    )
    assert SECRET not in repr(found)


def test_the_environment_reaches_every_key() -> None:
    """The key itself too: a variable is where it belongs."""
    found = load_settings(
        environ={
            "UNDRIFT_EMBEDDER": "openai:bge-m3",
            "UNDRIFT_EMBEDDER__BASE_URL": "http://models.example/v1",
            "UNDRIFT_EMBEDDER__API_KEY": SECRET,
            "UNDRIFT_EMBEDDER__DIMENSION": "1024",
            "UNDRIFT_EMBEDDER__QUERY_PREFIX": "query: ",
        }
    ).embedder_options
    assert (found.base_url, found.api_key) == ("http://models.example/v1", SECRET)
    assert (found.dimension, found.query_prefix) == (1024, "query: ")


def test_a_key_in_the_file_is_refused_and_not_repeated() -> None:
    """Files are committed."""
    with pytest.raises(ConfigError) as caught:
        settings(f'[embedder]\nname = "openai:{SMALL}"\napi_key = "{SECRET}"\n')
    assert SECRET not in str(caught.value)
    assert "api_key = 'env:OPENAI_API_KEY'" in caught.value.fix


def test_openais_key_goes_to_openai_only() -> None:
    """Or to the server that the variable beside it names; never to one that only undrift knows."""
    name, key = {"UNDRIFT_EMBEDDER": "openai:m"}, {"OPENAI_API_KEY": SECRET}
    assert load_settings(environ=name | key).embedder_options.api_key == SECRET
    gateway = {"OPENAI_BASE_URL": "https://gateway.example/v1"}
    by_variable = load_settings(environ=name | key | gateway).embedder_options
    assert (by_variable.api_key, by_variable.base_url) == (SECRET, gateway["OPENAI_BASE_URL"])
    own = {"UNDRIFT_EMBEDDER__BASE_URL": "https://models.example/v1"}
    assert load_settings(environ=name | key | own).embedder_options.api_key is None
    named = own | {"UNDRIFT_EMBEDDER__API_KEY": "env:OPENAI_API_KEY"}
    assert load_settings(environ=name | key | named).embedder_options.api_key == SECRET
    region = {"UNDRIFT_EMBEDDER__BASE_URL": "https://eu.api.openai.com/v1"}
    assert load_settings(environ=name | key | region).embedder_options.api_key == SECRET


def test_a_name_alone_takes_its_key_from_the_environment() -> None:
    """As in `Undrift(embedder="openai:…")`."""
    assert embedder_options({"OPENAI_API_KEY": f" {SECRET}\n"}).api_key == SECRET


def test_another_embedder_does_not_trip_over_the_files_server() -> None:
    """A quick UNDRIFT_EMBEDDER=hashing needs no key and no server."""
    found = settings(
        '[embedder]\nname = "openai:m"\nbase_url = "env:NOWHERE"\n', UNDRIFT_EMBEDDER="hashing:8"
    )
    assert open_embedder(found.embedder, found.embedder_options).model.startswith("hashing/")


def test_an_unknown_key_is_an_error_with_the_nearest_name() -> None:
    """As everywhere in the file."""
    with pytest.raises(ConfigError) as caught:
        settings('[embedder]\nname = "local"\nbaseurl = "x"\n')
    assert "'base_url'" in caught.value.why


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dimension", "0"),
        ("dimension", '"many"'),
        ("batch_texts", "4096"),
        ("timeout_seconds", "0"),
        ("max_attempts", "0"),
        ("max_text_tokens", "1"),
        ("revision", '"a:b"'),
    ],
)
def test_a_value_that_cannot_be_is_refused(key: str, value: str) -> None:
    """With the setting's name."""
    with pytest.raises(ConfigError, match=f"embedder.{key} is not usable"):
        settings(f'[embedder]\nname = "openai:{SMALL}"\n{key} = {value}\n')


@pytest.mark.parametrize(
    "base_url",
    [
        "models.example/v1",
        "ftp://models.example/v1",
        "http://",
        "http://models.example:port/v1",
        f"https://user:{SECRET}@models.example/v1",
        f"https://models.example/v1?key={SECRET}",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(base_url: str) -> None:
    """It may hold a password."""
    with pytest.raises(ConfigError) as caught:
        OpenAIEmbedder(SMALL, EmbedderOptions(base_url=base_url))
    assert "address is not usable" in caught.value.what
    assert SECRET not in str(caught.value)


# --- the key, when it is needed ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        (EmbedderOptions(), "OPENAI_API_KEY"),
        (
            EmbedderOptions(base_url="http://localhost/v1", key_variable="MODELS_KEY"),
            "MODELS_KEY",
        ),
    ],
)
def test_a_missing_key_is_told_when_something_is_embedded(
    options: EmbedderOptions, variable: str
) -> None:
    """A check needs none: the model and its dimension are known without."""
    embedder = OpenAIEmbedder(SMALL, options)
    assert embedder.dimension == 1536
    with pytest.raises(ConfigError, match=f"{variable} is not set"):
        embedder.embed(["SQL"])


@pytest.mark.parametrize("key", ["sk-\nhunter2", "sk-hünter2"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    """The SDK's own error would show it."""
    with pytest.raises(ConfigError, match="key is not usable") as caught:
        OpenAIEmbedder(SMALL, EmbedderOptions(api_key=key)).embed(["SQL"])
    assert "nter2" not in str(caught.value)


def test_neither_the_name_nor_a_check_loads_the_sdk() -> None:
    """It takes half a second, and `undrift --help` has none to spare."""
    program = (
        "import sys; import undrift.cli.app, undrift.api; "
        "from undrift.embedders import open_embedder; "
        f"open_embedder('openai:{SMALL}').count_truncated(['SQL']); "
        "assert not {'openai', 'stamina'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("missing", ["openai", "stamina"])
def test_a_missing_package_is_told_with_the_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install undrift` brings no SDK."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError) as caught:
        OpenAIEmbedder(SMALL, EmbedderOptions(api_key=SECRET)).embed(["SQL"])
    assert f"{missing} is missing" in caught.value.why
    assert "pip install 'undrift[openai]'" in caught.value.fix


# --- waiting ----------------------------------------------------------------------------------

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:20 GMT"}, 20.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:59:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:20 -0000"}, 20.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, a date, or milliseconds; what is none of them is no wish."""
    assert retry_after_seconds(headers, NOON) == expected


def test_only_passing_faults_are_waited_out_and_not_for_ever() -> None:
    """True leaves the wait to the exponential backoff."""
    assert next_wait(PassingFault("x")) is True
    assert next_wait(PassingFault("x", wait_seconds=12.5)) == 12.5
    assert next_wait(PassingFault("x", wait_seconds=0.0)) is not False
    assert next_wait(PassingFault("x", wait_seconds=61)) is False
    assert next_wait(EmbeddingFailed("What", why="why.", fix="fix")) is False
    assert next_wait(ValueError()) is False


# --- tokens -----------------------------------------------------------------------------------


@given(st.text(max_size=300), st.integers(min_value=1, max_value=120))
def test_a_cut_text_is_the_longest_beginning_that_fits(text: str, max_tokens: int) -> None:
    """By the estimate."""
    cut = cut_to_estimate(text, max_tokens)
    assert text.startswith(cut)
    assert estimated_tokens(cut) <= max_tokens
    if cut != text:
        assert estimated_tokens(text[: len(cut) + 1]) > max_tokens


@given(st.text(max_size=300), st.integers(min_value=9, max_value=120))
def test_the_certain_cut_never_has_more_tokens_than_bytes(text: str, max_tokens: int) -> None:
    """And splits no character."""
    cut = cut_to_certainty(text, max_tokens)
    assert text.startswith(cut)
    assert len(cut.encode()) <= max_tokens - 8


def test_a_real_tokenizer_finds_fewer_tokens_than_estimated() -> None:
    """In prose of several scripts, with the model's tokenizer that is at hand."""
    from undrift.embedders.local import LocalEmbedder

    tokenizer, _ = LocalEmbedder()._loaded()
    tokenizer.no_truncation()
    prose = (
        "Led the migration of forty services to PostgreSQL 16.4, with no downtime at all. " * 9,
        "Руководил командой разработчиков платёжной системы и отвечал за её надёжность.",
        "Ingénieure à Zürich depuis 2019; développement de réseaux électriques régionaux.",
    )
    for text in prose:
        assert len(tokenizer.encode(text).ids) <= estimated_tokens(text)
