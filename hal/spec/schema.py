"""The JSON Schema of appliance files, for editors (`hal schema`)."""

from __future__ import annotations

from typing import Any

from hal.engines import available_engines
from hal.models import available_models
from hal.spec.model import Spec

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of an appliance file: every key with its description, the short forms included.

    What only whole files show (ports, memory, which engine serves what) is beyond a schema: `load_spec`.
    """
    schema = Spec.model_json_schema(mode="validation")
    definitions: dict[str, Any] = schema["$defs"]
    choice = definitions.pop("EngineChoice")
    definitions.pop("ModelChoice")
    below = {key: value for key, value in choice["properties"].items() if key != "name"}
    name = {**choice["properties"]["name"], "examples": list(available_engines())}
    definitions["EngineName"] = name
    definitions["EngineSettings"] = {
        "type": ["object", "null"],
        "title": "what differs from the engine's file",
        "additionalProperties": False,
        "properties": below,
    }
    definitions["EngineChoice"] = {
        **choice,
        "title": "an engine",
        "properties": {"name": {"$ref": "#/$defs/EngineName"}, **below},
    }
    by_name = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"$ref": "#/$defs/EngineName"},
        "additionalProperties": {"$ref": "#/$defs/EngineSettings"},
    }
    properties: dict[str, Any] = schema["properties"]
    properties["engines"] = {
        "title": "Engines",
        "description": properties["engines"]["description"],
        "anyOf": [
            {
                "type": "array",
                "minItems": 1,
                "items": {
                    "anyOf": [
                        {"$ref": "#/$defs/EngineName"},
                        {"$ref": "#/$defs/EngineChoice"},
                        {**by_name, "maxProperties": 1},
                    ]
                },
            },
            by_name,
        ],
    }
    model_name = {**definitions["Model"]["properties"]["name"], "examples": list(available_models())}
    model_file = {
        "type": "string",
        "pattern": r"^([^\x00-\x1f]*/)?[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\.yaml$",
        "title": "the path of a model's file",
    }
    by_model_name = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            "name": {"anyOf": [model_name, model_file]},
            "delivery": definitions["Model"]["properties"]["delivery"],
        },
    }
    properties["models"] = {
        "title": "Models",
        "description": properties["models"]["description"],
        "type": "array",
        "items": {"anyOf": [model_name, model_file, {"$ref": "#/$defs/Model"}, by_model_name]},
        "default": [],
    }
    schema["required"] = ["appliance", "engines"]
    return {"$schema": DRAFT, **schema, "title": "hal appliance", "description": "One appliance of hal."}
