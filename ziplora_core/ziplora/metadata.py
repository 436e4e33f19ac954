"""The metadata of a learned merge's file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from ..files.metadata import prediction_type, source_metadata
from ..lora.merged import NEGATIVE_STRENGTH
from ..lora.pair import LoRAPair
from .options import ZipLoRASettings
from .report import Retention


def ziplora_metadata(
    pair: LoRAPair,
    settings: ZipLoRASettings,
    measured: tuple[Retention, Retention] | None,
    v_prediction: bool,
    flow: bool,
) -> dict[str, str]:
    """Compose the `modelspec.*` and `ziplora.*` strings of a merge.

    Args:
        pair: the two LoRAs that were merged.
        settings: the widgets.
        measured: the retention of the direct merge and of this one; None where not measured.
        v_prediction, flow: whether the model predicts v, or the velocity of a flow.
    """
    said = {
        **prediction_type(v_prediction, flow),
        "ziplora.method": "ziplora",
        "ziplora.settings": json.dumps(asdict(settings)),
        NEGATIVE_STRENGTH: f"{settings.negative_strength:g}",
    }
    if measured is not None:
        before, after = (asdict(r) for r in measured)
        if all(math.isfinite(v) for v in (*before.values(), *after.values()) if v is not None):
            said["ziplora.retention"] = json.dumps({"direct_merge": before, "merged": after})
    return source_metadata(pair.content, pair.style) | said
