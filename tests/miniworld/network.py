"""The parts of the miniature SDXL before training; its text encoders as a differentiable call."""

from __future__ import annotations

import comfy.model_base
import torch
from comfy.sdxl_clip import SDXLTokenizer
from torch import Tensor, nn

from sandbox.tiny import prediction_keys
from sandbox.tiny_pack.mini import CONFIG, MiniClip, MiniSDXL
from sandbox.tiny_weights import initialise

TOKENS, END = 77, 49407


@torch.no_grad()
def new_model(seed: int) -> comfy.model_base.SDXL:
    """Build the untrained UNet in ComfyUI's class: v-prediction with zero terminal SNR.

    The layers start as PyTorch's do, and the last of every residual branch at zero.
    """
    config = MiniSDXL(CONFIG)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(prediction_keys("v", zsnr=True), device=torch.device("cpu"))
    torch.manual_seed(seed)
    unet = model.diffusion_model
    for module in unet.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            _standard_start(module)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in unet.named_parameters():
        if ".out_layers.3." in name or ".proj_out." in name or name.startswith("out.2."):
            nn.init.zeros_(parameter)
    return model


def new_text_encoders(seed: int) -> MiniClip:
    encoders = MiniClip(dtype=torch.float32)
    initialise(encoders, seed)
    return encoders


class Vocabulary:
    """The tokens that the world's captions use, as ids of CLIP-L and of CLIP-G."""

    def __init__(self, words: set[str]) -> None:
        self._tokenizer = SDXLTokenizer()
        self._tokens: dict[str, tuple[list[int], list[int]]] = {}
        self.ids = sorted({i for word in words | {""} for row in self._pair(word) for i in row})

    def rows(self, captions: list[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Give the 77 ids of each caption for both encoders."""
        pairs = [self._pair(text) for text in captions]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def ends(self, captions: list[str]) -> list[int]:
        """Give the place of the token that ends each caption."""
        return [self._pair(text)[0].index(END) for text in captions]

    def _pair(self, text: str) -> tuple[list[int], list[int]]:
        if text not in self._tokens:
            self._tokens[text] = _token_ids(self._tokenizer, text)
        return self._tokens[text]


class TrainedText(nn.Module):
    """Both text encoders with trainable rows for the vocabulary: the other rows stay as they are.

    `captions → (context (b, 77, 128), pooled (b, 64))`, as CLIP Text Encode computes them.
    """

    def __init__(self, encoders: MiniClip, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.encoders, self.vocabulary = encoders, vocabulary
        self.encoders.requires_grad_(True)
        self.rows = nn.ParameterList()
        position = torch.zeros(49408, dtype=torch.long)
        position[vocabulary.ids] = torch.arange(len(vocabulary.ids))
        for part in self.parts:
            embedding = part.transformer.get_input_embeddings()
            embedding.weight.requires_grad_(False)
            self.rows.append(nn.Parameter(embedding.weight[vocabulary.ids].clone()))
            rows = self.rows[-1]
            embedding.register_forward_hook(
                lambda module, inputs, output, rows=rows: rows[position[inputs[0]]]
            )
            for layer in part.transformer.text_model.encoder.layers:
                for norm in (layer.layer_norm1, layer.layer_norm2):  # ComfyUI adds in place
                    norm.register_forward_pre_hook(lambda module, inputs: (inputs[0].clone(),))

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    @property
    def width(self) -> int:
        return self.rows[0].shape[1]

    @property
    def parts(self) -> tuple[nn.Module, nn.Module]:
        return self.encoders.clip_l, self.encoders.clip_g

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        (l_out, *_), (g_out, g_pooled, *_) = (
            part(rows)
            for part, rows in zip(self.parts, self.vocabulary.rows(captions), strict=True)
        )
        return torch.cat([l_out, g_out], -1), g_pooled


def _standard_start(module: nn.Module) -> None:
    fan_in = module.weight[0].numel()
    nn.init.uniform_(module.weight, -(fan_in**-0.5), fan_in**-0.5)
    if module.bias is not None:
        nn.init.uniform_(module.bias, -(fan_in**-0.5), fan_in**-0.5)


def _token_ids(tokenizer: SDXLTokenizer, text: str) -> tuple[list[int], list[int]]:
    """Tokenize a short text: `(CLIP-L's 77 ids, CLIP-G's 77 ids)`."""
    tokens = tokenizer.tokenize_with_weights(text)
    first, second = (([token for token, _ in tokens[part][0]]) for part in ("l", "g"))
    assert len(first) == len(second) == TOKENS
    return first, second
