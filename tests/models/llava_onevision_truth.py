"""A tiny random LLaVA-OneVision in transformers' class."""

from __future__ import annotations

from functools import cache, partial

from llava_next_truth import COMMON, GRID, MANY, SIGLIP, WIDE_SIDE, look_of, make, pinpoints, text_config, write_tower
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from vision_truth import Truth, byte_tokenizer

MOST = 2  # tiles, that maps are shrunk to


def onevision_config() -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig(
        text_config=text_config("qwen2"), vision_config=SIGLIP, vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_grid_pinpoints=pinpoints(MANY, WIDE_SIDE),
        vision_aspect_ratio=f"anyres_max_{MOST}", **COMMON,
    )  # fmt: skip


class StillProcessor(LlavaOnevisionProcessor):
    """LlavaOnevisionProcessor without videos, for which it needs torchvision."""

    def check_argument_for_proper_class(self, name: str, argument: object) -> type:
        return type(argument)


@cache
def onevision_processor() -> StillProcessor:
    pictures = LlavaOnevisionImageProcessorPil(
        size={"height": WIDE_SIDE, "width": WIDE_SIDE}, **look_of(MANY, WIDE_SIDE)
    )  # fmt: skip
    return StillProcessor(
        pictures, byte_tokenizer(["<image>"], "<image>"), num_image_tokens=GRID**2, image_token="<image>",
        vision_feature_select_strategy="full", vision_aspect_ratio=f"anyres_max_{MOST}",
    )  # fmt: skip


TOWERS = {
    "llava onevision": Truth(
        "mlp", partial(make, LlavaOnevisionForConditionalGeneration, onevision_config()), write_tower,
        onevision_processor, "<image>",
    ),
}  # fmt: skip
