"""The projections that Talk2DINO's authors released; known without opening any."""

from collections.abc import Mapping
from dataclasses import dataclass

LICENCE = "Apache-2.0 by the model card; the authors' repository has no licence file"
REPOSITORY = "https://github.com/lorebianchi98/Talk2DINO"
_COMMIT = "4918c2df1d00c644ecc7f34de070694af1a8bc69"


@dataclass(frozen=True)
class ReleasedProjection:
    """A file of the authors.

    Attributes:
        file: its name in their repository.
        sha256: of its bytes.
        size: its bytes.
        tower: timm's name of the DINO that it was trained for.
    """

    file: str
    sha256: str
    size: int
    tower: str

    @property
    def address(self) -> str:
        """Where it lies, at the commit that the hash is of."""
        repository = REPOSITORY.replace("github.com", "raw.githubusercontent.com")
        return f"{repository}/{_COMMIT}/weights/{self.file}"


RELEASED: Mapping[str, ReleasedProjection] = {
    "talk2dino-b": ReleasedProjection(
        "vitb_mlp_infonce.pth",
        "5f6efcc520f22916ecf3dfdfb01d6f57e701c1c2e1feda71a80d89e3cd752f0f",
        3_940_664,
        "vit_base_patch14_reg4_dinov2.lvd142m",
    ),
    "talk2dino-dinov3-b": ReleasedProjection(
        "dinov3_vitb_mlp_infonce.pth",
        "6fc5ce7a05d8f1c829c174d87b861da05399cf0bfe50de3711ac940115d85fcc",
        3_940_311,
        "vit_base_patch16_dinov3.lvd1689m",
    ),
}
"""By the names that they have here."""
