"""Masked entity completion: the image says which entities were masked (Xu et al., equation 5).

Letters: B image, C embedding width.
"""

from torch import Tensor

from ovseg.losses.contrastive import contrastive_loss


def entity_loss(
    answer: Tensor,
    prompt: Tensor,
    scale: Tensor,
    has_entity: Tensor | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Contrast between what the decoder answers and the prompt that names the masked entities.

    The same loss and scale as between images and captions, over the batch of all processes.

    Args:
        answer: projected first token of the entity decoder, float [B, C].
        prompt: text embedding of `a photo of dog and frisbee`, float [B, C].
        scale: what cosines are multiplied by, float [].
        has_entity: captions in which an entity was masked, bool [B]; the others have nothing to
            complete and are left out. All by default, as in the reference.
        rank, world_size: this process and how many there are.

    Returns:
        The loss, float [].
    """
    return contrastive_loss(answer, prompt, scale, has_entity, rank, world_size)
