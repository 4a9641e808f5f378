"""Masked entity completion's decoder: masked captions look at image groups (Xu et al., sec. 3.3).

Letters: B image or text, G group, L token, D image width, E text width, F = min(D, E).
"""

from torch import Tensor, nn

from ovseg.models.ovsegmentor.blocks import CrossAttentionBlock, layer_norm, self_attention_block


class EntityDecoder(nn.Module):
    """Text tokens attend to groups, then to each other; the first token answers.

    Args:
        mask_padding: keep padding out of the tokens' self-attention. False is the reference's
            behaviour, which accepts the mask and ignores it, so that an answer depends on how long
            its neighbours in the batch are.
    """

    def __init__(
        self,
        image_width: int,
        text_width: int,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-5,
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        norm = layer_norm(norm_eps)
        self.width = min(image_width, text_width)
        self.mask_padding = mask_padding
        # The wider side is brought down; at equal widths the image side keeps a linear layer.
        narrow_text = text_width > image_width
        self.align_image = nn.Identity() if narrow_text else nn.Linear(image_width, self.width)
        self.align_text = nn.Linear(text_width, self.width) if narrow_text else nn.Identity()
        self.norm_tokens = norm(self.width)
        self.norm_groups = norm(self.width)
        self.cross = CrossAttentionBlock(self.width, heads, mlp_ratio, norm_eps)
        self.block = self_attention_block(self.width, heads, mlp_ratio, 0.0, norm_eps)
        self.norm_out = norm(self.width)

    def forward(self, tokens: Tensor, mask: Tensor, groups: Tensor) -> Tensor:
        """Answer each masked caption from its image.

        Args:
            tokens: features of the masked captions, float [B, L, E].
            mask: True at real tokens, bool [B, L].
            groups: group features, float [B, G, D].

        Returns:
            The decoder's first token, float [B, F].
        """
        tokens = self.norm_tokens(self.align_text(tokens))  # [B, L, F]
        groups = self.norm_groups(self.align_image(groups))  # [B, G, F]
        crossed = self.cross(tokens, groups)
        attend = mask[:, None, None, :] if self.mask_padding else None  # [B, 1, 1, L]
        answered = self.norm_out(self.block(crossed, attn_mask=attend) + crossed)
        return answered[:, 0]
