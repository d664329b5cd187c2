"""Small sizes for the keys of configurations, so different that shapes tell tensors apart."""

from __future__ import annotations

import re

Size = int | tuple[int, int, int]  # of all parts, or of (text, vision, audio)

# Patterns of whole keys and their size; the first that matches wins. Widths of experts are
# multiples of 8: grouped products ask for it.
SIZES: tuple[tuple[str, Size], ...] = (
    ("vocab_size text_vocab_size n_token .*_vocab_size n_words", 136),
    ("(n_|num_)?(hidden_|block_)?(layers|layer|blocks) depth num_layers n_layers", (4, 2, 3)),
    ("(num_)?encoder_(num_)?(hidden_)?layers conf_num_hidden_layers n_encoder_layers", 3),
    ("(num_)?decoder_(num_)?(hidden_)?layers n_decoder_layers speech_encoder_layers", 4),
    ("(qformer|resampler|perceiver|predictor|pred|t2u_(en|de)coder)_.*(layers|depth)", 2),
    (
        "hidden_size d_model n_embd embed_dim (hidden_)?dim emb_dim n_embed model_dim width",
        (48, 32, 56),
    ),
    ("hidden_size_(text|lm) text_(hidden|embed)_(size|dim) out_hidden_size text_dim", 48),
    (
        "lm_hidden_size output_hidden_size condition_dim thinker_hidden_size image_token_embed_dim",
        48,
    ),
    ("backbone_hidden_size hidden_size_global audio_prompt_dim lru_width conv_dim", 48),
    (
        "cross_attention_hidden_size cross_hidden_size vision_output_dim projector_(in|out)put_dim",
        48,
    ),
    ("audio_hidden_size enc_dim", 56),
    ("moe_intermediate_size expert_ffn_hidden_size moe_ffn_hidden_size", 40),
    ("(moe_)?shared_expert_intermediate_size shared_experts?_intermediate_size", 72),
    ("shared_intermediate_size", 72),
    ("intermediate_size(_mlp)? dense_intermediate_size ffn_(hidden_)?(dim|size)", (112, 88, 96)),
    (
        "(encoder_|decoder_|t2u_.*|speech_.*)?ffn_dim d_ff n_inner mlp_dim feedforward_dim",
        (112, 88, 96),
    ),
    ("(encoder|decoder|speech_encoder|projector)_(intermediate_size|ffn_dim|mlp_dim)", 112),
    ("dff dim_ff d_inner projection_intermediate_size feed_forward_size word_embed_dim", 112),
    ("num_filters", 4),
    ("base_channels latent_channels nemo_conv_channels", 32),
    ("upsample_groups", 8),
    ("encoder_hidden_dim attention_hidden_size", 64),
    ("alignment_intermediate_size", 92),
    ("ext_pw_out_channel depthwise_separable_out_channel downsample_hidden_size", 40),
    ("output_channels upsample_initial_channel subsampling_conv_channels codebook_dim", 32),
    ("o_lora_rank hc_lowrank embedding_rank gated_norm_rank loop_gate_rank laurel_rank", 10),
    ("moe_hidden_size moe_latent_size", 44),
    ("num_kv_shared_layers", 0),
    ("max_image_size max_img_size", 64),
    ("block_size context_length context_size canvas_length position_embedding_size", 64),
    ("max_2d_position_embeddings pos_emb_(height|width) max_pos_emb", 16),
    ("(num_)?key_value_heads num_kv_heads n_kv_heads .*num_key_value_heads", 2),
    (".*(attention_heads|num_heads|n_heads?|n_head)", (4, 2, 4)),
    ("linear_num_key_heads linear_num_value_heads linear_num_heads", 4),
    ("head_dim dim_head attention_head_dim swa_head_dim d_head d_kv global_head_dim", (16, 16, 14)),
    ("linear_(key_|value_)?head_dim", 8),
    ("kv_lora_rank", 20),
    ("q_lora_rank", 24),
    ("qk_rope_head_dim", 8),
    ("qk_nope_head_dim", 16),
    ("qk_head_dim", 24),
    ("v_head_dim", 12),
    ("rotary_dim", 8),
    ("index_head_dim", 16),
    ("index_n_heads", 2),
    ("index_topk", 4),
    ("(n_|num_|moe_num_)?(routed_|local_)?experts", 6),
    ("moe_num_experts num_moe_experts", 6),
    ("(n_|num_|moe_num_)?shared_experts", 1),
    ("num_experts_per_tok(en)? moe_(top)?k top_k_experts num_selected_experts moe_topk", 2),
    ("n_group topk_group num_expert_group", 1),
    ("first_k_dense_replace num_dense_layers moe_layer_start_index", 1),
    ("max_(position|source_position|target_position)s?(_embeddings)? n_positions", 104),
    ("max_(source|target)_positions max_seq_len model_max_length", 104),
    ("image_size crop_size input_image_size", 32),
    ("patch_size", 8),
    ("num_mel_bins input_feat_size feature_size input_dim mel_dim", 16),
    ("projection_dim proj_dim", 44),
    ("projector_hidden_size projection_hidden_dim", 52),
    ("embedding_size word_embed_proj_dim", 26),
    ("mamba_(n|num)_heads", 4),
    ("n_groups", 2),
    ("mamba_d_head mamba_head_dim", 24),
    ("(mamba_)?(d_state|state_size|ssm_state_size)", 12),
    ("(mamba_)?chunk_size", 8),
    ("sliding_window attention_window local_attention attention_chunk_size", 8),
    ("num_position_embeddings", 64),
    ("type_vocab_size", 3),
    ("num_conv_pos_embeddings", 8),
    ("num_conv_pos_embedding_groups", 2),
    ("codebook_size num_embeddings", 64),
    ("codevector_dim proj_codevector_dim", 16),
    ("hidden_size_per_layer_input", 12),
    ("vocab_size_per_layer_input", 136),
    ("(attn_layer|expert_layer|full_attention|global_attn).*(period|interval|layers)", 2),
    ("(attn_layer|expert_layer)_offset", 1),
    ("decoder_sparse_step encoder_sparse_step", 1),
    ("encoder_hash_byte_group_vocab", 112),
    ("num_buckets relative_attention_num_buckets", 18),
    ("num_labels", 5),
)

_VISION = re.compile(r"visi|visual|image|video|vit|pixel|dino|sam|siglip|vq_|backbone|detector")
_AUDIO = re.compile(r"audio|speech|codec|mimi|acoustic|sound|whisper|depth_dec|decoder_audio")
_PATTERNS = [(re.compile("|".join(patterns.split())), size) for patterns, size in SIZES]


def small_size(key: str, value: int, where: str) -> int:
    """The size for `key`, no larger than `value`; `where` is its path of keys."""
    if key == "vocab_size" and value < 136:
        return value
    tower = 2 if _AUDIO.search(where) else 1 if _VISION.search(where) else 0
    for pattern, size in _PATTERNS:
        if pattern.fullmatch(key):
            new = size if isinstance(size, int) else size[tower]
            return min(value, new) if value >= 0 else value
    return value
