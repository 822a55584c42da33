"""What the models of files are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, strict=True)]
# Of what becomes a folder and a file: with what is put behind it, no file system finds it too long.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Part(BaseModel):
    """A part of a file: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
