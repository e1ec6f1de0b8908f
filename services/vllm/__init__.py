"""What vLLM's pack holds of ours: `vllm` starts it with the pack's Python, launcher.py with our settings."""
