"""What YAML files have in common: where each key stands, wording of errors, strict types, plugin folders."""
