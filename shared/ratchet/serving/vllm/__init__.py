"""Serves through vLLM: this server is then the router in front of one or several vLLM servers."""
