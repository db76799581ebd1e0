"""The models that a mesh has when nobody has chosen others: which are fetched, and who answers what."""

from collections.abc import Mapping
from typing import Final

#: Models of the zoo in the order in which they make a fresh mesh useful soonest: small ones first, then those that are
#: trained for a minute, then the largest.
PULL: Final = (
    "double",
    "efficientnet_lite0",
    "all_minilm_l6_v2",
    "silero_vad",
    "ppocr_v6_detector",
    "ppocr_v6",
    "whisper_tiny_en_encoder",
    "whisper_tiny_en",
    "movielens_retrieval",
    "movielens",
    "clothing_sentiment",
    "whisper_base_encoder",
    "whisper_base",
)

#: Service -> task or role -> model, for requests that name none.
DEFAULTS: Final[Mapping[str, Mapping[str, str]]] = {
    "vision": {"classify": "efficientnet_lite0", "embed": "efficientnet_lite0", "read_text": "ppocr_v6"},
    "nlp": {
        "embed": "all_minilm_l6_v2",
        "rerank": "all_minilm_l6_v2",
        "zero_shot": "all_minilm_l6_v2",
        "classify": "clothing_sentiment",
    },
    "recommendation": {"recommend": "movielens", "rank": "movielens", "similar_items": "movielens"},
    "speech": {"recognize": "whisper_base", "streaming": "whisper_tiny_en", "detect_speech": "silero_vad"},
}

#: Roles that a service resolves besides its tasks: which task the model must answer.
ROLES: Final[Mapping[str, str]] = {"zero_shot": "embed", "streaming": "recognize"}


def tasks_of(service: str) -> Mapping[str, str]:
    """Every key that `[services.<service>.defaults]` may have, and the task that its model must answer."""
    return {key: ROLES.get(key, key) for key in (*DEFAULTS[service], "tensor")}
