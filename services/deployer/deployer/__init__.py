"""The deployment system: the gate that decides, and the roll-out that brings a server to what is desired."""
