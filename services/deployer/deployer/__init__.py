"""The deployment system: the gate that decides, and the rollout that brings the server to the desired state."""
