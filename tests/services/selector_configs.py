"""Engines and a configuration as the selector's tests want them."""

from __future__ import annotations

from services.selector.config import Config, EngineConfig


def engine(name: str, port: int, **changes: object) -> EngineConfig:
    made = EngineConfig(
        name,
        "127.0.0.1",
        port,
        f"http://127.0.0.1:{port}/v1",
        "/health",
        200,
        "/v1/models",
        "m",
        "m",
        f"engines/{name}",
    )
    return made._replace(**changes)  # type: ignore[arg-type]


VLLM = engine("vllm", 8000, environment="VLLM", served=("m", "other"), tensor_parallel="2")
OLLAMA = engine(
    "ollama", 11434, environment="OLLAMA", listed_as="{model_name}:latest", listed_model="m:latest"
)
OPENAI = engine("openai", 0, environment="OPENAI_COMPATIBLE", managed=False)._replace(
    host="unix:/run/x.sock", base_url="https://api.example.com/openai/v1"
)
CONFIG = Config("auto", (VLLM, OLLAMA, OPENAI), "/g", "/s")
