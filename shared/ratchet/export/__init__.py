"""Getting a checkpoint out: a Hugging Face folder with a model card, an adapter alone, a Modelfile for Ollama."""
