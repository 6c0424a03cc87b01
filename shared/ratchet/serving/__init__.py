"""The inference server that clients talk to, and the one protocol through which it is driven."""
