"""The machinery that runs the documentation notices what is wrong with a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from support.doc_pages import Page, PageError, commands_of, read_page
from support.doc_runner import Runner, updated

RunnerOf = Callable[[Page], Runner]
PAGE = Path("page.md")

DATABASE = """\
    <!-- run: console
    $ export DATABASE_URL=sqlite:///app.db UNDRIFT_EMBEDDER=hashing
    -->
    <!-- run: sql
    CREATE TABLE profiles (user_id integer PRIMARY KEY, filtered_data text);
    INSERT INTO profiles VALUES (1, '{"skills": ["SQL"]}');
    -->
"""


def page(text: str) -> Page:
    """A page of this text."""
    return read_page(PAGE, dedent(text))


def errors_of(runner_of: RunnerOf, text: str) -> list[str]:
    """What a page of this text says and is not so."""
    runner = runner_of(page(text))
    runner.run()
    return [difference.error for difference in runner.differences]


# --- what is compared ---------------------------------------------------------------------------


def test_page_that_tells_the_truth_passes(runner_of: RunnerOf) -> None:
    """Both streams, the exit code, a hidden setup, and `...` for what does not matter."""
    text = (
        DATABASE
        + """
    ```console
    $ undrift check --user-id 1
    Using source sqlite:///app.db profiles(user_id, filtered_data); store ...
    🔍 Vector sync check for user 1:
    ...
    $ echo $?
    1
    $ undrift check --user-id 1 --output json | grep -c in_sync
    Using source ...
    1
    ```
    """
    )
    assert errors_of(runner_of, text) == []


@pytest.mark.parametrize(
    "claim",
    [
        "$ echo yes\nno",
        "$ echo yes",
        "$ true\nyes",
        "$ undrift --version\nundrift 0.0.0",
        "$ undrift check --all\nUsing ...\n❌ Error: ...",
        "$ false\n$ echo $?\n0",
        "$ export NAME=a\n$ echo $NAME\nb",
    ],
)
def test_wrong_claim_about_a_command_is_noticed(runner_of: RunnerOf, claim: str) -> None:
    """Wrong output, missing output, invented output, a wrong exit code."""
    (error,) = errors_of(runner_of, f"```console\n{claim}\n```\n")
    assert error.startswith("page.md:")


def test_wrong_claim_about_python_and_sql_is_noticed(runner_of: RunnerOf) -> None:
    """The text block after a program or a query is what it prints."""
    text = """
    ```python
    print(1 + 1)
    ```

    ```text
    3
    ```

    ```sql
    SELECT 'a' AS letter, 12 AS number;
    ```

    ```text
     letter | number
    --------+-------
     b      | 12
    ```
    """
    first, second = errors_of(runner_of, text)
    assert "and what happens is\n2\n" in first
    assert "\n a      | 12\n" in second


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint('unseen')\n```\n",
        "```python\nraise ValueError\n```\n",
        "```sql\nSELECT nonsense;\n```\n",
        "```toml\n[stor]\n```\n",
        "<!-- run: file undrift.toml, wrong -->\n```toml\n[store]\n```\n",
        "```json\n{]\n```\n",
        "```yaml\na: [\n```\n",
        "```yaml\nrun: undrift chek --all\n```\n",
        "```crontab\n5 4 * * undrift --version\n```\n",
        "```crontab\n5 4 * * * undrift chek\n```\n",
        "```crontab\n5 4 * * * echo 10%\n```\n",
        "<!-- run: console\n$ false\n-->\n",
    ],
)
def test_block_that_does_not_work_fails_the_page(runner_of: RunnerOf, text: str) -> None:
    """Shown or hidden, in every language that can be run or read."""
    with pytest.raises(AssertionError):
        errors_of(runner_of, text)


@pytest.mark.parametrize(
    "text",
    [
        "<!-- run: nonsense -->\n",
        "<!-- run console\n$ true\n-->\n",
        "<!-- run: file a.txt -->\n",
        "```python\n```\n\n<!-- run: on postgres -->\n",
        "```text\nanything\n```\n",
        "```\nanything\n```\n",
        "```console\nno prompt\n```\n",
    ],
)
def test_page_that_does_not_keep_to_the_convention_is_refused(
    runner_of: RunnerOf, text: str
) -> None:
    """A slip in a comment must not mean that a block is silently not run."""
    with pytest.raises(PageError):
        errors_of(runner_of, text)


def test_block_that_is_not_run_needs_a_reason(runner_of: RunnerOf) -> None:
    """With one it is left alone."""
    block = "```console\n$ exit 9\n```\n"
    assert errors_of(runner_of, f"<!-- run: not, the terminal would close -->\n{block}") == []
    with pytest.raises(PageError):
        errors_of(runner_of, f"<!-- run: not, -->\n{block}")


@pytest.mark.parametrize(
    "command",
    [
        "false",
        "undrift check --all --no-such-option",
        "undrift check --all --no-such-option > report.json",
        "undrift check --user-id 99",
        "undrift sync --all --config nowhere.toml  # check",
        "undrift doctor --user-id 1",
    ],
)
def test_command_that_fails_where_nothing_of_it_is_shown_fails_the_page(
    runner_of: RunnerOf, command: str
) -> None:
    """A page of answers only compares nothing there."""
    text = f"<!-- run: answers only -->\n{dedent(DATABASE)}```console\n$ {command}\n```\n"
    with pytest.raises(AssertionError, match=r"(?s)page\.md:\d+: .*\nexits \d+:\n"):
        errors_of(runner_of, text)


def test_look_may_find_drift_where_nothing_of_it_is_shown(runner_of: RunnerOf) -> None:
    """Exit code 1 is then its answer, and no failure."""
    text = """\
    ```console
    $ undrift check --all                      # exits 1
    $ undrift check --all --output json > report.json
    $ undrift sync --all --dry-run
    $ undrift sync --all
    ```
    """
    head = f"<!-- run: answers only -->\n{dedent(DATABASE)}"
    assert errors_of(runner_of, head + dedent(text)) == []


# --- worlds -------------------------------------------------------------------------------------


def test_files_and_variables_last_until_the_page_begins_afresh(runner_of: RunnerOf) -> None:
    """A page runs from top to bottom in one folder, or in several one after the other."""
    text = """
    ```console
    $ export WORD=kept
    $ echo $WORD > file
    $ cat file
    kept
    ```

    <!-- run: afresh -->
    ```console
    $ echo "[$WORD]"; cat file
    []
    cat: file: No such file or directory
    $ pwd
    /home/you/app
    ```
    """
    assert errors_of(runner_of, text) == []


def test_page_on_postgres_finds_its_server_by_the_names_it_shows(runner_of: RunnerOf) -> None:
    """As a role of its own, which may come again in the next world."""
    world = """
    <!-- run: sql
    CREATE ROLE docs_reader LOGIN PASSWORD 'secret';
    -->
    ```console
    $ export DATABASE_URL=postgresql://docs_reader:secret@db/app VECTOR_URL=sqlite:///v.db
    $ undrift check --user-id 1
    ❌ Error: No table 'profiles'
       Why: ...
       Fix: ...
    ```

    <!-- run: as docs_reader -->
    ```sql
    SELECT current_user;
    ```

    ```text
     current_user
    --------------
     docs_reader
    ```
    """
    text = f"<!-- run: on postgres -->\n{dedent(world)}<!-- run: afresh -->\n{dedent(world)}"
    assert errors_of(runner_of, text) == []


def test_stopped_server_is_an_outage_until_it_is_started(runner_of: RunnerOf) -> None:
    """The page says when."""
    text = """
    <!-- run: on postgres -->
    ```console
    $ export DATABASE_URL=postgresql://postgres@db/app VECTOR_URL=sqlite:///v.db
    ```
    <!-- run: stop postgres -->
    ```console
    $ undrift check --all
    ❌ Error: The source cannot be read
    ...
    $ echo $?
    3
    ```
    <!-- run: start postgres -->
    """
    assert errors_of(runner_of, text) == []


# --- updating -----------------------------------------------------------------------------------


def test_updated_page_tells_the_truth_and_keeps_the_rest(runner_of: RunnerOf) -> None:
    """Outputs in lists and below each other, longer and shorter than before."""
    text = """
    Before.

    - in a list

      ```console
      $ printf 'a\\nb\\n'
      old
      $ true
      old
      $ echo same
      same
      ```

    ```python
    print("new")
    ```

    ```text
    old
    older
    ```

    After.
    """
    runner = runner_of(page(text))
    runner.run()
    renewed = updated(runner.page, runner.differences)
    assert "  $ printf 'a\\nb\\n'\n  a\n  b\n  $ true\n  $ echo same\n  same\n" in renewed
    assert "```text\nnew\n```\n\nAfter.\n" in renewed
    assert errors_of(runner_of, renewed) == []


def test_command_may_go_over_several_lines() -> None:
    """A backslash ends a line that goes on."""
    (block,) = page("```console\n$ echo a \\\n  b\na b\n```\n").blocks
    (command,) = commands_of(block)
    assert (command.line, command.output) == ("echo a \\\n  b", "a b\n")


def test_setup_line_is_left_out_where_the_page_says_so(runner_of: RunnerOf) -> None:
    """It is long, always the same, and once is enough."""
    block = (
        "\n    ```console\n    $ undrift sync --user-id 1 2>&1 | grep -c 'Using source'\n    1\n"
    )
    shown = "    $ undrift search SQL --user-id 1 | cat\n    ⚠️ NOTICE: ...\n    ```\n"
    order = "    <!-- run: without the setup line -->\n"
    assert errors_of(runner_of, DATABASE + order + block + shown) == []
    assert len(errors_of(runner_of, DATABASE + block + shown)) == 1
