"""What default configurations need besides small sizes, by the name of the family.

A path of keys and its value; `!key` is given to the configuration's constructor before it shrinks.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_ROPES = {
    kind: {"rope_theta": 10000.0, "rope_type": "default"}
    for kind in ("full_attention", "sliding_attention")
}
_INDEXER = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16}
_INDEXER |= {"indexer_budget": 8, "indexer_compress_ratio": 2}
_REFORMER = {"axial_pos_embds_dim": [16, 32], "axial_pos_shape": [8, 13], "attention_head_size": 16}
_REFORMER |= {"attn_layers": ["local", "lsh", "local", "lsh"]}
_NARROW = {"embed_dim": 24}
_BERT = {"model_type": "bert"}
_DECODER = _BERT | {"is_decoder": True, "add_cross_attention": True}
_MUSIC = {"!text_encoder": {"model_type": "t5"}, "!audio_encoder": {"model_type": "encodec"}}
_MUSIC |= {"!decoder": {"cross_attention_hidden_size": None}}
_SPEECH = {"encoder_config.context_size": 12, "projector_config.encoder_hidden_size": 48}
_CHANNELS = {"width_coefficient": 0.1, "depth_coefficient": 0.2, "hidden_dim": 64}
EXCEPTIONS: dict[str, Config] = {
    "align": {f"vision_config.{key}": value for key, value in _CHANNELS.items()},
    "apertus1p5": {
        "audio_config.codebook_dim": 56,
        "image_token_offset": 8,
        "audio_token_offset": 72,
    },
    "bit": {"num_groups": 2},
    "blt": {f"{part}_config.head_dim": 12 for part in ("patcher", "encoder", "decoder", "global")}
    | {"encoder_config.num_hidden_layers": 2},
    "chameleon": {"vocabulary_map": {"<image>": 5, "IMGIMGA": 6}, "vq_config.resolution": 16},
    "cohere_compass": {"text_config.rope_parameters": _ROPES},
    "cohere_compass_text": {"rope_parameters": _ROPES},
    "d_fine": {"head_dim": 12},
    "dbrx": {
        "attn_config.rope_theta": 1e4,
        "attn_config.kv_n_heads": 2,
        "attn_config.clip_qkv": 8.0,
        "ffn_config.hidden_size": 48,
    },
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        "text_config.num_experts_per_tok": 2,
    },
    "deimv2": {"head_dim": 12},
    "diffusion_gemma": {
        "text_config.num_experts": 6,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 40,
    },
    "donut-swin": _NARROW,
    "dory": {
        "num_hidden_layers": 8,
        "n_input_layers": 2,
        "n_recurrent_layers": 4,
        "n_output_layers": 2,
        "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp"] * 2,
    },
    "dots1": {"n_routed_experts": 6, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "efficientnet": _CHANNELS,
    "emu3": {"vocabulary_map": {"<image>": 5, "<|extra_200|>": 6}},
    "dots3_note": {
        "text_config.per_layer_config": {},
        "text_config.head_dim": 24,
        "vision_config.adapter_in_dim": 32,
        "vision_config.adapter_out_dim": 48,
        "audio_config.adapter_input_size": 56,
        "audio_config.adapter_out_dim": 48,
    },
    "dots3_note_text": {"per_layer_config": {}, "head_dim": 24},
    "encoder-decoder": {"!encoder": _BERT, "!decoder": _DECODER},
    "ernie4_5_vl_moe": {
        "text_config.moe_intermediate_size": [40, 24],
        "text_config.rope_parameters.mrope_section": [2, 2, 2],
    },
    "esm": {"vocab_size": 136, "mask_token_id": 3, "pad_token_id": 0},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 32},
    "focalnet": _NARROW,
    "fun_asr_nano": {"adaptor_config.intermediate_size": 12},
    "gemma4_assistant": {
        "!text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
    },
    "glm5_next": {"text_config.num_key_value_heads": 4, "text_config.index_topk": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptsan-japanese": {"num_switch_layers": 2, "num_ext_layers": 2},
    "granite4_vision": {
        "deepstack_layer_map": [[-2, 0], [-1, 1]],
        "downsample_rate": "4/8",
        "spatial_target_layers": [1],
        "vision_config.hidden_size": 64,
        "qformer_config.hidden_size": 64,
        "qformer_config.encoder_hidden_size": 64,
    },
    "granite_speech": _SPEECH,
    "granite_speech_plus": _SPEECH,
    "helium": {"head_dim": 12},
    "hiera": _NARROW,
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 6},
    "hunyuan_vl": {"text_config.head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"zero_expert_num": 2},
    "lw_detr": {
        "backbone_config.num_windows": 4,
        "num_windows": 4,
    },
    "mamba2": {"head_dim": 24, "num_heads": 4, "n_groups": 2},
    "ministral": {"head_dim": 16},
    "molmo2": {
        "adapter_config.vision_feature_layer": [1, 0],
        "vision_config.image_size": [32, 32],
        "vision_config.num_position_embeddings": 16,
    },
    "moonshine_streaming": {"num_key_value_heads": 4},
    "musicgen": _MUSIC,
    "musicgen@causal": {},
    "musicgen_melody": _MUSIC,
    "musicgen_melody@causal": {},
    "nemo_speechlm": {
        "text_config.layers_block_type": ["linear_attention", "moe", "full_attention", "moe"]
    },
    "nemotron": {"num_key_value_heads": 2},
    "perceiver": {
        "d_latents": 48,
        "d_model": 56,
        "num_cross_attention_heads": 4,
        "num_latents": 20,
        "num_self_attends_per_block": 4,
        "num_self_attention_heads": 4,
    },
    "qwen2_5_omni": {"token2wav_config.bigvgan_config.upsample_initial_channel": 128},
    "qwen3_omni_moe": {
        "talker_config.text_config.shared_expert_intermediate_size": 72,
        "talker_config.spatial_merge_size": 2,
        "code2wav_config.decoder_dim": 48,
    },
    "qwen4_exp": {f"text_config.{key}": value for key, value in _INDEXER.items()},
    "qwen4_exp_text": _INDEXER,
    "reformer": _REFORMER,
    "reformer@causal": _REFORMER | {"is_decoder": True},
    "stablelm": {"rope_parameters.partial_rotary_factor": 0.5},
    "speech-encoder-decoder": {"!encoder": {"model_type": "wav2vec2"}, "!decoder": _DECODER},
    "squeezebert": {"embedding_size": 48},
    "swin": _NARROW,
    "swinv2": _NARROW,
    "tipsv2": {"vision_config.hidden_size": 48, "vision_config.num_attention_heads": 4},
    "vision-encoder-decoder": {"!encoder": {"model_type": "vit"}, "!decoder": _DECODER},
    "wav2vec2-bert": {"vocab_size": 136},
    "wav2vec2-conformer": {"vocab_size": 136},
    "xlnet": {"d_head": 12},
    "xlstm": {"embedding_dim": 48},
    "zamba": {"attention_hidden_size": 96, "attention_head_dim": 24},
    "zamba2": {
        "attention_hidden_size": 96,
        "attention_head_dim": 24,
        "mamba_headdim": 24,
        "mamba_ngroups": 2,
        "n_mamba_heads": 4,
    },
}
