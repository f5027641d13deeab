"""The demo: sample careers, a database and its vectors, every kind of drift, and its repair.

`story` tells it step by step, `database` makes the files and spoils them with plain SQL behind
undrift's back, `wording` puts results into words. The careers in `profiles.json` are invented.
"""
