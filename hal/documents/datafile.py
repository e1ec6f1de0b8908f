"""hal's own data in YAML: what is wrong with one is told with its file and key, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hal.documents.document import dotted
from hal.documents.wording import problems_of
from hal.errors import HalError

Data = TypeVar("Data", bound=BaseModel)


def read_data(path: Path, model: type[Data]) -> Data:
    """A YAML file as a value of `model`.

    Raises:
        HalError: the file cannot be read, or a value in it is wrong.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        problem = problems_of(error, model)[0]
        raise HalError(f"{path}: {dotted(problem.path)}: {problem.text}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise HalError(f"{path}: {error}") from None
