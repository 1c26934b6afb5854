"""How processes of a node talk: msgspec messages and raw blocks over a Unix stream socket."""
