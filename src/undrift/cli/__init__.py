"""The command line: parse, one call of the API, render.

`app` and `db_sync_vector` declare the commands, `run` carries a command from its first line to its
exit code, `report` and the two `render_…` modules write the answer.
"""
