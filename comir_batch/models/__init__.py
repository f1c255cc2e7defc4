"""The shipped models: safetensors and a card each."""
