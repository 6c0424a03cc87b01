"""The inference server for clients, and the protocol that the deployer uses to control it."""
