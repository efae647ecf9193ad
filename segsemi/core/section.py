"""The base of all typed blocks of params."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One block of params.yaml: no unknown keys, no silent conversions, never changed after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
