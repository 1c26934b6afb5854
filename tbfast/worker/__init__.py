"""One ingest process: wires net, engine, store and link together."""
