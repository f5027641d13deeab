"""Every bad input that is promised an answer, and the tests that show it.

Each has its exit code, an error of three parts, no traceback, and leaves both sides as they were;
on SQLite and on PostgreSQL where both make sense, by `undrift` and by `db-sync-vector`.
"""

from __future__ import annotations

import ast
from pathlib import Path

ADDRESSES = "test_bad_input_addresses"
USAGE = "test_bad_input_usage"
PROFILES = "test_bad_input_profiles"
STORES = "test_bad_input_stores"

NO_DOCUMENT = "profile_that_is_no_document_is_unknown_and_stops_nobody_else"
TEXTS = "nul_and_half_a_pair_in_a_text_become_replacement_characters"
FLAGS = "wrong_flags_exit_2_and_do_nothing"

BAD_INPUTS = {
    "no DATABASE_URL": [(ADDRESSES, "no_database_url_names_the_variable")],
    "malformed DATABASE_URL": [
        (ADDRESSES, "malformed_url_is_refused_and_not_repeated"),
        (ADDRESSES, "database_that_is_not_read_is_refused"),
    ],
    "unreachable server": [(ADDRESSES, "unreachable_server_is_unknown_not_drift")],
    "wrong password": [
        (ADDRESSES, "wrong_password_is_configuration_and_is_not_shown"),
        (ADDRESSES, "program_shows_no_traceback_and_no_password"),
    ],
    "no such database": [
        (ADDRESSES, "database_that_does_not_exist_is_called_so"),
        (ADDRESSES, "source_file_that_does_not_exist_is_not_created"),
    ],
    "no profiles table": [(ADDRESSES, "missing_table_names_the_nearest_that_exists")],
    "server source without VECTOR_URL": [
        (ADDRESSES, "server_source_without_vector_url_gives_the_line")
    ],
    "unknown user": [
        (USAGE, "unknown_user_is_told_once"),
        (USAGE, "unknown_user_stops_nobody_else"),
    ],
    "both or neither of --userId and --all": [(USAGE, FLAGS)],
    "both or neither of --check and --sync": [(USAGE, FLAGS)],
    "unknown flag": [(USAGE, FLAGS)],
    "unknown key in the file": [(USAGE, "unknown_key_in_the_file_names_the_nearest")],
    "search before the first sync": [
        (USAGE, "search_before_the_first_sync_says_why_it_finds_nothing")
    ],
    "invalid JSON, NULL, a list, a scalar in one profile": [(PROFILES, NO_DOCUMENT)],
    "duplicate ids in one profile": [
        (PROFILES, NO_DOCUMENT),
        (PROFILES, "ids_given_twice_are_harmless_where_they_say_the_same"),
    ],
    "entity without text": [(PROFILES, "entity_without_text_wants_no_record")],
    "10 MB text": [(PROFILES, "text_of_ten_megabytes_is_compared_whole_and_embedded_in_part")],
    "NUL and lone surrogates in a text": [(PROFILES, TEXTS)],
    "NUL and lone surrogates in an id": [
        (PROFILES, NO_DOCUMENT),
        (PROFILES, "owner_that_no_store_takes_is_refused_by_name"),
    ],
    "embedder of another dimension": [(STORES, "embedder_of_another_dimension_is_refused")],
    "read-only store": [
        (STORES, "store_opened_read_only_is_read_and_not_written"),
        (STORES, "store_of_another_user_is_read_and_not_written"),
        (STORES, "store_that_a_role_may_only_read_is_read_and_not_written"),
    ],
    "a side that fails in the middle of a page": [
        (STORES, "connection_that_breaks_anywhere_leaves_a_check_unknown"),
        (STORES, "connection_that_breaks_anywhere_in_a_sync_loses_nothing"),
        (STORES, "backend_that_is_killed_within_a_page_is_unknown"),
        (STORES, "file_that_is_damaged_within_a_page_is_unknown"),
        (STORES, "control_naive_check_takes_a_broken_connection_for_drift"),
    ],
}


def names_in(module: str) -> set[str]:
    """The names of a module's tests, without ``test_``."""
    parsed = ast.parse(Path(__file__).with_name(f"{module}.py").read_text("utf-8"))
    names = {node.name for node in parsed.body if isinstance(node, ast.FunctionDef)}
    return {name.removeprefix("test_") for name in names if name.startswith("test_")}


def test_every_bad_input_is_tested_and_every_test_is_listed() -> None:
    """So that what is promised can be found in one place."""
    listed = {test for tests in BAD_INPUTS.values() for test in tests}
    modules = (ADDRESSES, USAGE, PROFILES, STORES)
    assert listed == {(module, name) for module in modules for name in names_in(module)}
