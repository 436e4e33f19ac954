"""Everything of ComfyUI that the pack relies on, in one list; docs/versions.md shows it.

`tests/comfy/test_comfyui_api.py` compares it with the pack's own source and looks for each name in
the ComfyUI that runs, so that a newer one fails with a sentence that names what is gone.
"""

from __future__ import annotations

PUBLIC = (
    "comfy_api.latest.ComfyExtension",
    "comfy_api.latest.io.Boolean.Input",
    "comfy_api.latest.io.Clip.Input",
    "comfy_api.latest.io.Clip.Output",
    "comfy_api.latest.io.ClipVision.Input",
    "comfy_api.latest.io.Color.Input",
    "comfy_api.latest.io.Combo.Input",
    "comfy_api.latest.io.ComfyNode",
    "comfy_api.latest.io.Conditioning.Input",
    "comfy_api.latest.io.ControlAfterGenerate.fixed",
    "comfy_api.latest.io.Custom",
    "comfy_api.latest.io.Float.Input",
    "comfy_api.latest.io.Float.Output",
    "comfy_api.latest.io.Hidden.extra_pnginfo",
    "comfy_api.latest.io.Hidden.unique_id",
    "comfy_api.latest.io.Image.Input",
    "comfy_api.latest.io.Image.Output",
    "comfy_api.latest.io.Input",
    "comfy_api.latest.io.Int.Input",
    "comfy_api.latest.io.Latent.Input",
    "comfy_api.latest.io.LoraModel.Input",
    "comfy_api.latest.io.LoraModel.Output",
    "comfy_api.latest.io.LossMap.Input",
    "comfy_api.latest.io.LossMap.Output",
    "comfy_api.latest.io.Model.Input",
    "comfy_api.latest.io.Model.Output",
    "comfy_api.latest.io.NodeOutput",
    "comfy_api.latest.io.Schema",
    "comfy_api.latest.io.String.Input",
    "comfy_api.latest.io.String.Output",
    "comfy_api.latest.io.Vae.Input",
    "comfy_api.latest.ui.PreviewImage",
    "comfy_api.latest.ui.PreviewText",
)
"""Of `comfy_api`, the package with which ComfyUI promises custom nodes a stable interface."""

DOCUMENTED = (
    "comfy_execution.graph_utils.ExecutionBlocker(message)",
    "server.PromptServer.instance",
    "server.PromptServer.send_sync(event, data, sid)",
)
"""Not in `comfy_api`, but in ComfyUI's documentation for developers of custom nodes."""

INTERNAL = (
    "comfy.clip_model.CLIPLayer",
    "comfy.conds.CONDCrossAttn",
    "comfy.conds.CONDRegular",
    "comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, disable)",
    "comfy.ldm.modules.attention.BasicTransformerBlock",
    "comfy.ldm.modules.attention.attention_pytorch",
    "comfy.ldm.modules.diffusionmodules.openaimodel.ResBlock",
    "comfy.lora.calculate_weight(patches, weight, key)",
    "comfy.lora.model_lora_keys_clip(model, key_map)",
    "comfy.lora.model_lora_keys_unet(model, key_map)",
    "comfy.model_base.SDXL",
    "comfy.model_base.SDXLRefiner",
    "comfy.model_management.cast_to_device(tensor, device, dtype)",
    "comfy.model_management.device_supports_non_blocking(device)",
    "comfy.model_management.discard_cuda_async_error",
    "comfy.model_management.free_memory(memory_required, device)",
    "comfy.model_management.get_free_memory(dev)",
    "comfy.model_management.get_torch_device",
    "comfy.model_management.get_total_memory(dev)",
    "comfy.model_management.in_training",
    "comfy.model_management.load_models_gpu(models, memory_required, force_full_load)",
    "comfy.model_management.should_use_bf16(device)",
    "comfy.model_management.should_use_fp16(device)",
    "comfy.model_management.soft_empty_cache",
    "comfy.model_management.throw_exception_if_processing_interrupted",
    "comfy.model_management.training_fp8_bwd",
    "comfy.model_management.unload_all_models",
    "comfy.model_management.unload_model_and_clones(model)",
    "comfy.model_patcher.get_key_weight(model, key)",
    "comfy.model_sampling.V_PREDICTION",
    "comfy.ops.fp8_ops.Linear",
    "comfy.patcher_extension.CallbacksMP.ON_DETACH",
    "comfy.patcher_extension.PatcherInjection(inject, eject)",
    "comfy.patcher_extension.WrappersMP.APPLY_MODEL",
    "comfy.quant_ops.QuantizedTensor",
    "comfy.sample.fix_empty_latent_channels(model, latent_image)",
    "comfy.sample.prepare_noise(latent_image, seed)",
    "comfy.sample.sample(model, noise, steps, cfg, seed)",
    "comfy.sample.sample_custom(model, noise, cfg, sampler, sigmas)",
    "comfy.sampler_helpers.convert_cond(cond)",
    "comfy.samplers.KSAMPLER(sampler_function)",
    "comfy.samplers.KSampler.SAMPLERS",
    "comfy.samplers.KSampler.SCHEDULERS",
    "comfy.samplers.calculate_sigmas(model_sampling, scheduler_name, steps)",
    "comfy.samplers.cond_cat(c_list)",
    "comfy.samplers.cond_equal_size(c1, c2)",
    "comfy.samplers.encode_model_conds(model_function, conds, noise, device, prompt_type)",
    "comfy.sd.load_lora_for_models(model, clip, lora, strength_model, strength_clip)",
    "comfy.sdxl_clip.SDXLRefinerClipModel",
    "comfy.utils.ProgressBar(total)",
    "comfy.utils.unet_to_diffusers(unet_config)",
    "comfy.weight_adapter.base.WeightAdapterBase",
    "comfy_api.torch_helpers.torch_compile.COMPILE_KEY",
    "comfyui_version.__version__",
    "folder_paths.get_filename_list(folder_name)",
    "folder_paths.get_full_path(folder_name, filename)",
    "folder_paths.get_input_directory",
    "folder_paths.get_output_directory",
    "folder_paths.get_save_image_path(filename_prefix, output_dir)",
)
"""Promised by nobody: names as ComfyUI happens to have them."""

METHODS = {
    "comfy.model_patcher.ModelPatcher": (
        "add_callback_with_key(call_type, key, callback)",
        "add_object_patch(name, obj)",
        "add_patches(patches, strength_patch)",
        "add_weight_wrapper(name, function)",
        "add_wrapper_with_key(wrapper_type, key, wrapper)",
        "clone(disable_dynamic, model_override, force_deepcopy)",
        "eject_model",
        "get_additional_models_with_key(key)",
        "get_model_object(name)",
        "is_dynamic",
        "model_state_dict",
        "partially_load(device_to, extra_memory)",
        "remove_injections(key)",
        "set_injections(key, injections)",
        "set_model_compute_dtype(dtype)",
    ),
    "comfy.model_base.BaseModel": (
        "apply_model(x, t, c_concat, c_crossattn, control, transformer_options)",
        "extra_conds",
        "get_dtype_inference",
        "process_latent_in(latent)",
        "process_latent_out(latent)",
    ),
    "comfy.model_sampling.ModelSamplingDiscrete": ("percent_to_sigma(percent)",),
    "comfy.model_sampling.EPS": (
        "calculate_denoised(sigma, model_output, model_input)",
        "noise_scaling(sigma, noise, latent_image, max_denoise)",
    ),
    "comfy.sd.CLIP": (
        "clone",
        "encode_from_tokens(tokens, return_pooled)",
        "encode_from_tokens_scheduled(tokens)",
        "tokenize(text)",
    ),
    "comfy.sd.VAE": ("decode(samples_in)", "encode(pixel_samples)"),
    "comfy.sd1_clip.SDClipModel": ("reset_clip_options", "set_clip_options(options)"),
    "comfy.sdxl_clip.SDXLClipModel": (
        "encode_token_weights(token_weight_pairs)",
        "reset_clip_options",
        "set_clip_options(options)",
    ),
    "comfy.clip_vision.ClipVisionModel": ("encode_image(image, crop)",),
}
"""What is called on a MODEL, CLIP, VAE and CLIP_VISION, by the class that has it; also internal."""

ATTRIBUTES = {
    "MODEL": (
        *("backup", "cached_patcher_init", "hook_backup", "injections", "load_device"),
        *("model", "model_options", "object_patches", "patches", "size", "wrappers"),
    ),
    "MODEL.model": (
        *("device", "diffusion_model", "latent_format", "model_config", "model_lowvram"),
        *("model_sampling", "latent_format.latent_channels", "model_config.unet_config"),
    ),
    "MODEL.model.model_sampling": ("sigmas",),
    "CLIP": (
        *("cond_stage_model", "layer_idx", "patcher", "tokenizer_options", "use_clip_schedule"),
        "cond_stage_model.clip_g",
    ),
    "VAE": ("first_stage_model", "latent_channels", "patcher"),
}
"""What is read of the objects that nodes are given; also internal."""
