"""The command ``undrift completion``, which prints a script for the shell and edits no file.

The scripts ask the program itself, by the variables that typer's parser answers to, so that they
never lag behind the commands.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from undrift.cli.streams import open_terminal

VARIABLE = "_UNDRIFT_COMPLETE"
"""Set by a script that asks what may come next."""


class Shell(StrEnum):
    """A shell that a script can be printed for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


# Bash makes three words of --output=text, and replaces only the one that the cursor is on.
_BASH = """\
# undrift completion for bash
_undrift_completion() {
    local IFS=$'\\n' word i
    local -a words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == "=" && ${words[${#words[@]} - 1]} == --* ]]; then
            if ((i == COMP_CWORD)); then words+=(""); fi
        else
            words+=("$word")
        fi
    done
    COMPREPLY=($(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \\
                 _UNDRIFT_COMPLETE=complete_bash "$1" 2>/dev/null))
}
complete -o default -F _undrift_completion undrift
"""
_ZSH = """\
#compdef undrift
_undrift_completion() {
  eval "$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" \\
          _UNDRIFT_COMPLETE=complete_zsh undrift 2>/dev/null)"
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _undrift_completion "$@"
else
  compdef _undrift_completion undrift
fi
"""
_FISH = """\
# undrift completion for fish
function __undrift_completion
    env _UNDRIFT_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] \\
        _TYPER_COMPLETE_ARGS=(commandline -cp) undrift 2>/dev/null
end
complete --command undrift --no-files --arguments '(__undrift_completion get-args)' \\
    --condition '__undrift_completion is-args'
"""
_SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}


def prepare() -> None:
    """Let the parser answer the scripts; without the variable that they set, do nothing."""
    if VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell to complete in.")],
) -> int:
    """Print a script that completes commands, options and their values in a shell.

    Nothing is installed. For good: put it where the shell looks, such as
    ~/.local/share/bash-completion/completions/undrift, a folder of zsh's fpath as _undrift, or
    ~/.config/fish/completions/undrift.fish.
    """
    terminal = open_terminal()
    terminal.say_text(_SCRIPTS[shell])
    return 0
