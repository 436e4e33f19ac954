"""The mathematics and the loops of the pack; torch only, except for `comfy_adapter`.

Read it the way the data flows:

    files.read_lora ×2                   a file of any spelling → LoRA: factors per module
    comfy_adapter.targets.resolve_unet   → the model's own names and shapes, by ComfyUI's key map
    pairing.pair_modules                 → content and style side by side
    branches.Branches                    the gated low-rank branches beside each frozen layer
    comfy_adapter.training_model         a private copy of MODEL with them on it: `denoise`
    comfy_adapter.references             noisy states with their single-LoRA teacher's target
    coefficients.MergerCoefficients      what is learned
    zip_objective.ZipObjective           what it is learned from
    training.train                       the loop
    merge.MergedLoRA                     coefficients and factors → one exact LoRA
    files.writer.write_lora              → a file, or comfy_adapter.apply → a clone of MODEL

`comfy_adapter.zip_session` calls these in this order.
"""
