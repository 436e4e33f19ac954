"""The mathematics and the training loops; torch only, except for `comfy_adapter`.

A folder imports only from the folders above it in this list:

    lora            factors of a LoRA, pairs, merges, singular values, norms, pruning
    files           LoRA files: read in every program's spelling, written in one
    training        the one loop, branches beside frozen layers, losses, checkpoints, options
    ziplora         merger coefficients: objective, closed form, report
    dreambooth      a LoRA from pictures: objective, metadata, report
    sliders         Concept Sliders: objectives, presets, report
    unziplora       two LoRAs from one picture: objective, feature masks, report
    merging         merges without training
    plots           figures and scores
    comfy_adapter   ComfyUI: model → data → train, apply, tools

How a LoRA file becomes a merge (`comfy_adapter.train.ziplora` takes these steps in this order):

    files.read_lora                          file → factors by module, for each of the two LoRAs
    comfy_adapter.model.targets              module names → the loaded model's weights
    lora.pair.pair_modules                   content and style side by side
    training.branches.Branches               both as gated branches beside each frozen layer
    comfy_adapter.model.training_model       a private copy of the MODEL with these branches
    comfy_adapter.data.references            noisy samples with the predictions of each LoRA alone
    lora.coefficients.MergerCoefficients     the learned parameters
    ziplora.closed_form.solve_coefficients   least squares, without gradients
    ziplora.objective, training.loop.train   gradient steps
    lora.merged.MergedLoRA                   coefficients and factors → one exact LoRA
    files.writer.write_lora                  → a file; comfy_adapter.apply.lora → a clone of MODEL

The other sessions are `comfy_adapter.train.dreambooth`, `.sliders` and `.unziplora`; all four share
`comfy_adapter.train.run`.
"""
