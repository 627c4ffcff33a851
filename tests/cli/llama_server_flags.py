"""Names of the flags and variables that llama-server b11434 lists in its help, and how many values follow."""

from __future__ import annotations

_BY_VALUES = {
    0: """
        -h --help --usage --version -cl --cache-list --completion-bash --swa-full -kvu --kv-unified -no-kvu
        --no-kv-unified --cache-idle-slots --no-cache-idle-slots --context-shift --no-context-shift --perf
        --no-perf -e --escape --no-escape -sp --special --warmup --no-warmup --spm-infill --ignore-eos -bs
        --backend-sampling -kvo --kv-offload -nkvo --no-kv-offload --repack -nr --no-repack --no-host -cb
        --cont-batching -nocb --no-cont-batching --mmproj-auto --no-mmproj --no-mmproj-auto --mmproj-offload
        --no-mmproj-offload --list-devices -cmoe --cpu-moe --check-tensors --op-offload --no-op-offload
        --reuse-port --cors-credentials --no-cors-credentials --ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy
        --no-webui-mcp-proxy -ag --agent -no-ag --no-agent --ui --webui --no-ui --no-webui --embedding
        --embeddings --rerank --reranking --cache-prompt --no-cache-prompt --metrics --props --slots --no-slots
        --models-autoload --no-models-autoload --jinja --no-jinja --reasoning-preserve --no-reasoning-preserve
        --skip-chat-parsing --no-skip-chat-parsing --prefill-assistant --no-prefill-assistant
        --lora-init-without-apply --log-disable --log-jsonl --no-log-jsonl -v --verbose --log-verbose --offline
        --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps --spec-draft-cpu-moe -cmoed
        --cpu-moe-draft --spec-draft-backend-sampling --no-spec-draft-backend-sampling --embd-gemma-default
        --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec
        --fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default --gpt-oss-120b-default
        --vision-gemma-4b-default --vision-gemma-12b-default --spec-default
    """,
    1: """
        -t --threads -tb --threads-batch -C --cpu-mask -Cr --cpu-range --cpu-strict --prio --poll -Cb
        --cpu-mask-batch -Crb --cpu-range-batch --cpu-strict-batch --prio-batch --poll-batch -lcs
        --lookup-cache-static -lcd --lookup-cache-dynamic -c --ctx-size --kv-unified-per-slot -n --predict
        --n-predict -b --batch-size -ub --ubatch-size --keep -ctxcp --ctx-checkpoints --swa-checkpoints -cms
        --checkpoint-min-step -cram --cache-ram -fa --flash-attn -r --reverse-prompt --samplers -s --seed
        --sampler-seq --sampling-seq --temp --temperature --top-k --top-p --min-p --top-nsigma --top-n-sigma
        --xtc-probability --xtc-threshold --typical --typical-p --repeat-last-n --repeat-penalty
        --presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length
        --dry-penalty-last-n --dry-sequence-breaker --adaptive-target --adaptive-decay --dynatemp-range
        --dynatemp-exp --mirostat --mirostat-lr --mirostat-ent -l --logit-bias --grammar --grammar-file -j
        --json-schema -jf --json-schema-file --pooling --rope-scaling --rope-scale --rope-freq-base
        --rope-freq-scale --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast
        -ctk --cache-type-k -ctv --cache-type-v -dt --defrag-thold -np --parallel -mm --mmproj -mmu --mmproj-url
        -mmdev --mmproj-device --image-min-tokens --image-max-tokens --mtmd-batch-max-tokens --video-fps
        --video-timestamp-interval --video-ffmpeg-dir --rpc -lm --load-mode -lzm --lazy-mode --numa -dev
        --device -ot --override-tensor -ncmoe --n-cpu-moe -ncffn --n-cpu-ffn -ngl --gpu-layers --n-gpu-layers
        -sm --split-mode -ts --tensor-split -mg --main-gpu -fit --fit -fitt --fit-target -fitc --fit-ctx
        --override-kv --lora --lora-scaled --control-vector --control-vector-scaled -a --alias --tags -m --model
        -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token --embd-normalize
        --host --port --path --cors-origins --cors-methods --cors-headers --api-prefix --ui-config
        --webui-config --ui-config-file --webui-config-file --tools --tools-runtime --mcp-servers-config
        --mcp-servers-json --api-key --api-key-file --ssl-key-file --ssl-cert-file --chat-template-kwargs -to
        --timeout --sse-ping-interval --threads-http --cache-reuse --slot-save-path --media-path --models-dir
        --models-preset --models-max --reasoning-format -rea --reasoning --reasoning-effort --reasoning-budget
        --reasoning-budget-message --chat-template --chat-template-file -sps --slot-prompt-similarity
        --sleep-idle-seconds --log-file --log-prompts-dir --log-colors -lv --verbosity --log-verbosity
        --spec-draft-hf -hfd -hfrd --hf-repo-draft --spec-draft-threads -td --threads-draft
        --spec-draft-threads-batch -tbd --threads-batch-draft --spec-draft-cpu-mask -Cd --cpu-mask-draft
        --spec-draft-cpu-range -Crd --cpu-range-draft --spec-draft-cpu-strict --cpu-strict-draft
        --spec-draft-prio --prio-draft --spec-draft-poll --poll-draft --spec-draft-cpu-mask-batch -Cbd
        --cpu-mask-batch-draft --spec-draft-cpu-strict-batch --cpu-strict-batch-draft --spec-draft-prio-batch
        --prio-batch-draft --spec-draft-poll-batch --poll-batch-draft --spec-draft-type-k -ctkd
        --cache-type-k-draft --spec-draft-type-v -ctvd --cache-type-v-draft --spec-draft-override-tensor -otd
        --override-tensor-draft --spec-draft-n-cpu-moe --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft
        --spec-draft-n-max --spec-draft-n-min --spec-synth-len --spec-synth-rates --spec-draft-p-split
        --draft-p-split --spec-draft-p-min --draft-p-min --spec-draft-sampling --spec-draft-device -devd
        --device-draft --spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-model -md
        --model-draft --spec-type --spec-ngram-mod-n-min --spec-ngram-mod-n-max --spec-ngram-mod-n-match
        --spec-ngram-simple-size-n --spec-ngram-simple-size-m --spec-ngram-simple-min-hits
        --spec-ngram-map-k-size-n --spec-ngram-map-k-size-m --spec-ngram-map-k-min-hits
        --spec-ngram-map-k4v-size-n --spec-ngram-map-k4v-size-m --spec-ngram-map-k4v-min-hits --draft --draft-n
        --draft-max --draft-min --draft-n-min --spec-ngram-size-n --spec-ngram-size-m --spec-ngram-min-hits
    """,
    2: """
        --control-vector-layer-range
    """,
}
FLAGS = {name: values for values, names in _BY_VALUES.items() for name in names.split()}
_VARIABLES = """
    LLAMA_ARG_THREADS LLAMA_ARG_CTX_SIZE LLAMA_ARG_KV_UNIFIED_PER_SLOT LLAMA_ARG_N_PREDICT LLAMA_ARG_BATCH
    LLAMA_ARG_UBATCH LLAMA_ARG_SWA_FULL LLAMA_ARG_CTX_CHECKPOINTS LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT
    LLAMA_ARG_CACHE_RAM LLAMA_ARG_KV_UNIFIED LLAMA_ARG_CACHE_IDLE_SLOTS LLAMA_ARG_CONTEXT_SHIFT
    LLAMA_ARG_FLASH_ATTN LLAMA_ARG_PERF LLAMA_ARG_TEMPERATURE LLAMA_ARG_TOP_K LLAMA_ARG_TOP_P LLAMA_ARG_MIN_P
    LLAMA_ARG_REPEAT_PENALTY LLAMA_ARG_PRESENCE_PENALTY LLAMA_ARG_FREQUENCY_PENALTY LLAMA_ARG_BACKEND_SAMPLING
    LLAMA_ARG_POOLING LLAMA_ARG_ROPE_SCALING_TYPE LLAMA_ARG_ROPE_SCALE LLAMA_ARG_ROPE_FREQ_BASE
    LLAMA_ARG_ROPE_FREQ_SCALE LLAMA_ARG_YARN_ORIG_CTX LLAMA_ARG_YARN_EXT_FACTOR LLAMA_ARG_YARN_ATTN_FACTOR
    LLAMA_ARG_YARN_BETA_SLOW LLAMA_ARG_YARN_BETA_FAST LLAMA_ARG_KV_OFFLOAD LLAMA_ARG_REPACK LLAMA_ARG_NO_HOST
    LLAMA_ARG_CACHE_TYPE_K LLAMA_ARG_CACHE_TYPE_V LLAMA_ARG_DEFRAG_THOLD LLAMA_ARG_N_PARALLEL
    LLAMA_ARG_CONT_BATCHING LLAMA_ARG_MMPROJ LLAMA_ARG_MMPROJ_URL LLAMA_ARG_MMPROJ_AUTO LLAMA_ARG_MMPROJ_OFFLOAD
    MTMD_BACKEND_DEVICE LLAMA_ARG_IMAGE_MIN_TOKENS LLAMA_ARG_IMAGE_MAX_TOKENS LLAMA_ARG_MTMD_BATCH_MAX_TOKENS
    LLAMA_ARG_VIDEO_FPS LLAMA_ARG_VIDEO_TIMESTAMP_INTERVAL LLAMA_ARG_VIDEO_FFMPEG_DIR LLAMA_ARG_RPC
    LLAMA_ARG_LOAD_MODE LLAMA_ARG_LAZY_MODE LLAMA_ARG_NUMA LLAMA_ARG_DEVICE LLAMA_ARG_OVERRIDE_TENSOR
    LLAMA_ARG_CPU_MOE LLAMA_ARG_N_CPU_MOE LLAMA_ARG_N_CPU_FFN LLAMA_ARG_N_GPU_LAYERS LLAMA_ARG_SPLIT_MODE
    LLAMA_ARG_TENSOR_SPLIT LLAMA_ARG_MAIN_GPU LLAMA_ARG_FIT LLAMA_ARG_FIT_TARGET LLAMA_ARG_FIT_CTX
    LLAMA_ARG_ALIAS LLAMA_ARG_TAGS LLAMA_ARG_MODEL LLAMA_ARG_MODEL_URL LLAMA_ARG_DOCKER_REPO LLAMA_ARG_HF_REPO
    LLAMA_ARG_HF_FILE HF_TOKEN LLAMA_ARG_HOST LLAMA_ARG_PORT LLAMA_ARG_REUSE_PORT LLAMA_ARG_STATIC_PATH
    LLAMA_ARG_CORS_ORIGINS LLAMA_ARG_CORS_METHODS LLAMA_ARG_CORS_HEADERS LLAMA_ARG_CORS_CREDENTIALS
    LLAMA_ARG_API_PREFIX LLAMA_ARG_UI_CONFIG LLAMA_ARG_UI_CONFIG_FILE LLAMA_ARG_UI_MCP_PROXY LLAMA_ARG_TOOLS
    LLAMA_ARG_TOOLS_RUNTIME LLAMA_ARG_MCP_SERVERS_CONFIG LLAMA_ARG_MCP_SERVERS_JSON LLAMA_ARG_AGENT LLAMA_ARG_UI
    LLAMA_ARG_EMBEDDINGS LLAMA_ARG_RERANKING LLAMA_API_KEY LLAMA_ARG_API_KEY_FILE LLAMA_ARG_SSL_KEY_FILE
    LLAMA_ARG_SSL_CERT_FILE LLAMA_ARG_CHAT_TEMPLATE_KWARGS LLAMA_ARG_TIMEOUT LLAMA_ARG_SSE_PING_INTERVAL
    LLAMA_ARG_THREADS_HTTP LLAMA_ARG_CACHE_PROMPT LLAMA_ARG_CACHE_REUSE LLAMA_ARG_ENDPOINT_METRICS
    LLAMA_ARG_ENDPOINT_PROPS LLAMA_ARG_ENDPOINT_SLOTS LLAMA_ARG_MODELS_DIR LLAMA_ARG_MODELS_PRESET
    LLAMA_ARG_MODELS_MAX LLAMA_ARG_MODELS_AUTOLOAD LLAMA_ARG_JINJA LLAMA_ARG_THINK LLAMA_ARG_REASONING
    LLAMA_ARG_REASONING_EFFORT LLAMA_ARG_THINK_BUDGET LLAMA_ARG_THINK_BUDGET_MESSAGE
    LLAMA_ARG_REASONING_PRESERVE LLAMA_ARG_CHAT_TEMPLATE LLAMA_ARG_CHAT_TEMPLATE_FILE
    LLAMA_ARG_SKIP_CHAT_PARSING LLAMA_ARG_PREFILL_ASSISTANT LLAMA_ARG_LOG_FILE LLAMA_ARG_LOG_JSONL
    LLAMA_ARG_LOG_COLORS LLAMA_ARG_OFFLINE LLAMA_ARG_LOG_VERBOSITY LLAMA_ARG_LOG_PREFIX LLAMA_ARG_LOG_TIMESTAMPS
    LLAMA_ARG_SPEC_DRAFT_HF_REPO LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V
    LLAMA_ARG_SPEC_DRAFT_CPU_MOE LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE LLAMA_ARG_SPEC_DRAFT_N_MAX
    LLAMA_ARG_SPEC_DRAFT_N_MIN LLAMA_ARG_SPEC_SYNTH_LEN LLAMA_ARG_SPEC_SYNTH_RATES LLAMA_ARG_SPEC_DRAFT_P_SPLIT
    LLAMA_ARG_SPEC_DRAFT_P_MIN LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING LLAMA_ARG_SPEC_DRAFT_SAMPLING
    LLAMA_ARG_N_GPU_LAYERS_DRAFT LLAMA_ARG_SPEC_DRAFT_MODEL LLAMA_ARG_SPEC_TYPE LLAMA_ARG_DRAFT_MAX
    LLAMA_ARG_DRAFT_MIN
"""
VARIABLES = _VARIABLES.split()
