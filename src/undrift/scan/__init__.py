"""Going over a whole fleet: which owners, page by page, by whom, and how far.

`page` checks some owners, by digests where the sides give them. `feed` says which owners come next,
`engine` who checks them, in threads, processes or elsewhere, and `run` puts it together, with
`progress` that another run can take up.
"""
