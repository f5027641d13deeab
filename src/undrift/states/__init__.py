"""States, chosen by the scheme of their address."""
