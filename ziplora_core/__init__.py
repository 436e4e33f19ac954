"""The mathematics and the loops of the pack; torch only, except for `comfy_adapter`.

Read it the way the data flows. A merge (`comfy_adapter.zip_session` calls these in this order):

    files.read_lora ×2                   a file of any spelling → LoRA: factors per module
    comfy_adapter.targets.resolve_unet   → the model's own names and shapes, by ComfyUI's key map
    pairing.pair_modules                 → content and style side by side
    branches.Branches                    the gated low-rank branches beside each frozen layer
    comfy_adapter.training_model         a private copy of MODEL with them on it: `denoise`
    comfy_adapter.references             noisy states with their single-LoRA teacher's target
    coefficients.MergerCoefficients      what is learned
    zip_objective.ZipObjective           what it is learned from
    closed_form.solve_coefficients       where it can start, or end: least squares, no gradients
    training.train                       the loop
    merge.MergedLoRA                     coefficients and factors → one exact LoRA
    files.writer.write_lora              → a file, or comfy_adapter.apply → a clone of MODEL

A LoRA from pictures (`comfy_adapter.dreambooth_session`) shares all of it but these:

    framing, comfy_adapter.pictures      pictures → size, crop, and what the VAE makes of them
    comfy_adapter.captions               captions → conditioning with that size and crop
    lora_parameters.LoRAParameters       what is learned: new factors
    dreambooth.DreamBoothObjective       what they are learned from

One picture taken apart into two LoRAs (`comfy_adapter.unzip_session`) shares these in turn:

    unzip_parameters.UnZipParameters     what is learned: two LoRAs, and a merger per feature
    unzip_columns                        which output features each of them has, and since when
    unzip.UnZipObjective                 what they are learned from: one prompt for each

A slider (`comfy_adapter.slider_session`) is such a LoRA, too, learned from words or picture pairs:

    comfy_adapter.slider_lessons         what there is to learn from, checked and encoded
    slider, slider_pairs                 the objectives
    comfy_adapter.slider_effect          what it does to a picture, while it learns and at the end
    comfy_adapter.concept_slider         it on a MODEL, for a part of the sampling

Without learning: `merge_methods` joins a pair (`rank_moments` and `comfy_adapter.calibration` tell
the calibrated ones what the layers see), `low_rank` reduces LoRAs, `comfy_adapter.extract` finds
the LoRA between two models, `files.export` writes other programs' spellings.
"""
