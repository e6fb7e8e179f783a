"""Everything a person may write, validated. Pydantic and YAML only: no torch, no Ray."""
