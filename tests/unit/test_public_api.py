"""The public names: what `import undrift` offers, what it costs, and that both faces are one."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest

import undrift
from undrift import errors
from undrift.aio import AsyncUndrift
from undrift.api import Undrift

EXAMPLES: list[errors.UndriftError] = [
    errors.UndriftError("What happened", why="this was found.", fix="do that"),
    errors.ConfigError("What happened", why="this was found.", fix="do that"),
    errors.OwnerNotFound("123"),
    errors.ProfileOutdated("123"),
    errors.DimensionMismatch(expected=768, found=384, model="local/m@1:768", fix="do that"),
    errors.UnknownStateError("What happened", why="this was found.", fix="do that"),
    errors.SourceUnavailable("What happened", why="this was found.", fix="do that"),
    errors.StateMismatch("What happened", why="this was found.", fix="do that"),
    errors.Superseded("What happened", why="this was found.", fix="do that"),
    errors.StateUnavailable("What happened", why="this was found.", fix="do that"),
    errors.StoreUnavailable("What happened", why="this was found.", fix="do that"),
    errors.IncompleteRead("What happened", why="this was found.", fix="do that"),
    errors.InvalidDocument("123", why="this was found.", fix="do that"),
    errors.TransientError("What happened", why="this was found.", fix="do that"),
    errors.WriteFailed("What happened", why="this was found.", fix="do that"),
    errors.EmbeddingFailed("What happened", why="this was found.", fix="do that"),
    errors.EmbeddingBudgetSpent(100),
    errors.SafetyStop("What happened", why="this was found.", fix="do that"),
    errors.UnsupportedError("What happened", why="this was found.", fix="do that"),
]


def kinds_of_error(root: type[errors.UndriftError]) -> Iterator[type[errors.UndriftError]]:
    """*root* and everything below it, as far as undrift itself defines it."""
    if root.__module__ == "undrift.errors":
        yield root
        for kind in root.__subclasses__():
            yield from kinds_of_error(kind)


def public_methods(face: type) -> dict[str, inspect.Signature]:
    """The public methods of a class and their signatures."""
    members = inspect.getmembers(face, callable)
    return {name: inspect.signature(m) for name, m in members if not name.startswith("_")}


def name_of(error: object) -> str:
    """An error's class, as a test's id."""
    return type(error).__name__


# --- names ------------------------------------------------------------------------------------


def test_public_names_are_sorted_and_there() -> None:
    """Every one can be imported, and `dir` shows no others."""
    assert undrift.__all__ == sorted(undrift.__all__)
    assert len(set(undrift.__all__)) == len(undrift.__all__)
    for name in undrift.__all__:
        assert getattr(undrift, name) is not None
    assert sorted(dir(undrift)) == undrift.__all__


def test_public_names_are_the_same_objects_wherever_they_are_imported_from() -> None:
    """`except undrift.ConfigError` catches what the modules raise."""
    for name in undrift.__all__:
        found = getattr(undrift, name)
        if inspect.isclass(found):
            home = importlib.import_module(found.__module__)
            assert getattr(home, name) is found
            assert home.__name__.startswith("undrift.")


def test_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` and `from undrift import …` work as everywhere."""
    with pytest.raises(AttributeError, match="no_such_name"):
        undrift.no_such_name  # noqa: B018
    assert not hasattr(undrift, "import_module_of_nothing")


def test_every_error_is_public() -> None:
    """What can be raised can be caught by name."""
    assert {kind.__name__ for kind in kinds_of_error(errors.UndriftError)} <= set(undrift.__all__)


def test_importing_undrift_loads_no_driver_and_no_library() -> None:
    """A program that only catches its errors pays for nothing else."""
    heavy = ["jinja2", "numpy", "onnxruntime", "psycopg", "pydantic", "rich", "sqlalchemy", "typer"]
    program = (
        "import sys, undrift\n"
        "undrift.UndriftError, undrift.SyncStatus, undrift.Entity, undrift.__version__\n"
        f"print(*sorted(set({heavy}) & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


# --- the two faces ----------------------------------------------------------------------------


def test_asynchronous_face_has_the_same_methods() -> None:
    """No more and no fewer."""
    assert sorted(public_methods(AsyncUndrift)) == sorted(public_methods(Undrift))


@pytest.mark.parametrize("name", sorted(public_methods(Undrift)))
def test_asynchronous_method_takes_the_same_parameters(name: str) -> None:
    """Names, order, kinds, defaults and types."""
    plain, asynchronous = public_methods(Undrift), public_methods(AsyncUndrift)
    assert list(asynchronous[name].parameters.values()) == list(plain[name].parameters.values())


@pytest.mark.parametrize("name", sorted(public_methods(AsyncUndrift)))
def test_every_method_of_the_asynchronous_face_is_asynchronous(name: str) -> None:
    """But for those that only put it together: none of them may hold the loop up."""
    method = getattr(AsyncUndrift, name)
    is_asynchronous = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
    assert is_asynchronous != name.startswith("from_")


def test_every_public_method_is_documented() -> None:
    """On both faces."""
    for face in (Undrift, AsyncUndrift):
        assert face.__doc__
        for name in public_methods(face):
            assert getattr(face, name).__doc__, name


# --- errors -----------------------------------------------------------------------------------


def test_there_is_an_example_of_every_error() -> None:
    """So that the tests below leave none out."""
    assert {type(error) for error in EXAMPLES} == set(kinds_of_error(errors.UndriftError))


@pytest.mark.parametrize("error", EXAMPLES, ids=name_of)
def test_error_prints_three_parts(error: errors.UndriftError) -> None:
    """What, why, fix."""
    assert str(error) == f"{error.what}: {error.why} Fix: {error.fix}"
    assert error.what
    assert error.why.endswith(".")
    assert error.fix
    assert error.args == (error.what, error.why, error.fix)


@pytest.mark.parametrize("error", EXAMPLES, ids=name_of)
@pytest.mark.parametrize("how", ["pickle", "copy"])
def test_error_survives_a_copy(error: errors.UndriftError, how: str) -> None:
    """Reports that hold one cross process boundaries, with what else it carries."""
    if isinstance(error, errors.EmbeddingFailed):
        error.retry_after_seconds = 7.0
    again = pickle.loads(pickle.dumps(error)) if how == "pickle" else copy.copy(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=name_of)
def test_error_belongs_to_one_branch(error: errors.UndriftError) -> None:
    """The branches follow what a caller can do, so no error is in two."""
    branches = [kind for kind in errors.UndriftError.__subclasses__() if isinstance(error, kind)]
    assert len(branches) == (type(error) is not errors.UndriftError)


def test_errors_tree_in_the_docstring_is_the_tree() -> None:
    """It is the first thing that a reader sees."""
    assert errors.__doc__ is not None
    for kind in kinds_of_error(errors.UndriftError):
        assert f" {kind.__name__} " in errors.__doc__.replace("\n", " ")
