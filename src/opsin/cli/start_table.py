"""llama-server's flags, grouped by what is said of them. `start_lines.py` reads the lines.

A line is a flag's names, a capital for each value, its variable without `LLAMA_ARG_`, and values that ask for nothing.
"""

from __future__ import annotations

from typing import Final

ACCEPTED: Final = {
    "there is no GPU to put anything on: the CPU computes all of it": """
        -ngl --gpu-layers --n-gpu-layers N = N_GPU_LAYERS unless 0
        -sm --split-mode M = SPLIT_MODE unless none
        -ts --tensor-split N = TENSOR_SPLIT
        -mg --main-gpu N = MAIN_GPU
        -dev --device D = DEVICE unless none
        -mmdev --mmproj-device D
        -fit --fit X = FIT unless off
        -fitt --fit-target N = FIT_TARGET
        -fitc --fit-ctx N = FIT_CTX
        -ot --override-tensor X = OVERRIDE_TENSOR
        -cmoe --cpu-moe = CPU_MOE
        -ncmoe --n-cpu-moe N = N_CPU_MOE
        -ncffn --n-cpu-ffn N = N_CPU_FFN
        -kvo --kv-offload = KV_OFFLOAD
        -nkvo --no-kv-offload = NO_KV_OFFLOAD
        --mmproj-offload = MMPROJ_OFFLOAD
        --no-mmproj-offload = NO_MMPROJ_OFFLOAD
        --op-offload
        --no-op-offload
        --no-host = NO_HOST
    """,
    "the file is mapped, and weights are laid out for the kernels once": """
        --mlock = MLOCK
        --mmap = MMAP
        --no-mmap = NO_MMAP
        -dio --direct-io = DIO
        -ndio --no-direct-io = NO_DIO
        -lm --load-mode M = LOAD_MODE
        -lzm --lazy-mode M = LAZY_MODE
        --repack = REPACK
        -nr --no-repack = NO_REPACK
        --check-tensors
        --warmup
        --no-warmup
    """,
    "attention and the sizes of steps are chosen here": """
        -fa --flash-attn X = FLASH_ATTN
        -b --batch-size N = BATCH
        -ub --ubatch-size N = UBATCH
        -cb --cont-batching = CONT_BATCHING
        -nocb --no-cont-batching = NO_CONT_BATCHING
        --mtmd-batch-max-tokens N = MTMD_BATCH_MAX_TOKENS
        -bs --backend-sampling = BACKEND_SAMPLING
        --perf = PERF
        --no-perf = NO_PERF
    """,
    "all answers share one cache by pages, whose beginnings are found again": """
        -kvu --kv-unified = KV_UNIFIED
        -no-kvu --no-kv-unified = NO_KV_UNIFIED
        --kv-unified-per-slot N = KV_UNIFIED_PER_SLOT
        --swa-full = SWA_FULL
        -ctxcp --ctx-checkpoints --swa-checkpoints N = CTX_CHECKPOINTS
        -cms --checkpoint-min-step N = CHECKPOINT_MIN_SPACING_NT
        -cram --cache-ram N = CACHE_RAM
        --cache-idle-slots = CACHE_IDLE_SLOTS
        --no-cache-idle-slots = NO_CACHE_IDLE_SLOTS
        --cache-prompt = CACHE_PROMPT
        --no-cache-prompt = NO_CACHE_PROMPT
        --cache-reuse N = CACHE_REUSE unless 0
        -sps --slot-prompt-similarity X
        -dt --defrag-thold N = DEFRAG_THOLD
        --keep N unless 0
        --no-context-shift = NO_CONTEXT_SHIFT
    """,
    "one team of threads computes prompts and answers (-t says how many; taskset and nice place it)": """
        -tb --threads-batch N
        --threads-http N = THREADS_HTTP
        -C --cpu-mask M
        -Cr --cpu-range R
        --cpu-strict X
        --prio N unless 0
        --poll N
        -Cb --cpu-mask-batch M
        -Crb --cpu-range-batch R
        --cpu-strict-batch X
        --prio-batch N unless 0
        --poll-batch N
        --numa M = NUMA
    """,
    "tokens are guessed where that pays (--guesses, -md): answers are the same without it": """
        -lcs --lookup-cache-static F
        -lcd --lookup-cache-dynamic F
        --spec-draft-hf -hfd -hfrd --hf-repo-draft R = SPEC_DRAFT_HF_REPO
        --spec-draft-threads -td --threads-draft N
        --spec-draft-threads-batch -tbd --threads-batch-draft N
        --spec-draft-cpu-mask -Cd --cpu-mask-draft M
        --spec-draft-cpu-range -Crd --cpu-range-draft R
        --spec-draft-cpu-strict --cpu-strict-draft X
        --spec-draft-prio --prio-draft N
        --spec-draft-poll --poll-draft X
        --spec-draft-cpu-mask-batch -Cbd --cpu-mask-batch-draft M
        --spec-draft-cpu-strict-batch --cpu-strict-batch-draft X
        --spec-draft-prio-batch --prio-batch-draft N
        --spec-draft-poll-batch --poll-batch-draft X
        --spec-draft-type-k -ctkd --cache-type-k-draft T = SPEC_DRAFT_CACHE_TYPE_K
        --spec-draft-type-v -ctvd --cache-type-v-draft T = SPEC_DRAFT_CACHE_TYPE_V
        --spec-draft-override-tensor -otd --override-tensor-draft X
        --spec-draft-cpu-moe -cmoed --cpu-moe-draft = SPEC_DRAFT_CPU_MOE
        --spec-draft-n-cpu-moe --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft N = SPEC_DRAFT_N_CPU_MOE
        --spec-draft-n-min N = SPEC_DRAFT_N_MIN
        --spec-synth-len L = SPEC_SYNTH_LEN
        --spec-synth-rates P = SPEC_SYNTH_RATES
        --spec-draft-p-split --draft-p-split P = SPEC_DRAFT_P_SPLIT
        --spec-draft-p-min --draft-p-min P = SPEC_DRAFT_P_MIN
        --spec-draft-backend-sampling = SPEC_DRAFT_BACKEND_SAMPLING
        --no-spec-draft-backend-sampling = NO_SPEC_DRAFT_BACKEND_SAMPLING
        --spec-draft-sampling M = SPEC_DRAFT_SAMPLING
        --spec-draft-device -devd --device-draft D
        --spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft N = N_GPU_LAYERS_DRAFT
        --spec-type T = SPEC_TYPE unless none
        --spec-ngram-mod-n-min N
        --spec-ngram-mod-n-max N
        --spec-ngram-mod-n-match N
        --spec-ngram-simple-size-n N
        --spec-ngram-simple-size-m N
        --spec-ngram-simple-min-hits N
        --spec-ngram-map-k-size-n N
        --spec-ngram-map-k-size-m N
        --spec-ngram-map-k-min-hits N
        --spec-ngram-map-k4v-size-n N
        --spec-ngram-map-k4v-size-m N
        --spec-ngram-map-k4v-min-hits N
        --spec-default
    """,
    "chats are written by the model's template, which is always read so": """
        --jinja = JINJA
        --no-jinja = NO_JINJA
        --no-skip-chat-parsing = NO_SKIP_CHAT_PARSING
        -e --escape
        --no-escape
    """,
    "messages are lines on stderr, and hold nothing of a prompt (--access-log has a line a request)": """
        --log-disable
        --log-file F = LOG_FILE
        --log-jsonl = LOG_JSONL
        --no-log-jsonl = NO_LOG_JSONL
        --log-colors X = LOG_COLORS
        -lv --verbosity --log-verbosity N = LOG_VERBOSITY
        --log-prefix = LOG_PREFIX
        --no-log-prefix = NO_LOG_PREFIX
        --log-timestamps = LOG_TIMESTAMPS
        --no-log-timestamps = NO_LOG_TIMESTAMPS
    """,
    "a request says which frames of a video are looked at, or the model's rule does": """
        --video-fps N = VIDEO_FPS
        --video-timestamp-interval N = VIDEO_TIMESTAMP_INTERVAL
        --video-ffmpeg-dir D = VIDEO_FFMPEG_DIR
    """,
    "the page has no settings to be given": """
        --ui-config --webui-config J = UI_CONFIG
        --ui-config-file --webui-config-file F = UI_CONFIG_FILE
    """,
    "properties are told, and never changed": """
        --props = ENDPOINT_PROPS
    """,
    "pages that may ask (--cors-origins) may use the methods and headers that there are": """
        --cors-methods M = CORS_METHODS
        --cors-headers H = CORS_HEADERS
        --cors-credentials = CORS_CREDENTIALS
        --no-cors-credentials = NO_CORS_CREDENTIALS
    """,
    "whoever asks gets embeddings and rankings; embeddings have length 1 unless embd_normalize says otherwise": """
        --embedding --embeddings = EMBEDDINGS
        --rerank --reranking = RERANKING
        --embd-normalize N
    """,
    "this server runs no tools": """
        --no-agent -no-ag = NO_AGENT
        --no-ui-mcp-proxy --no-webui-mcp-proxy = NO_UI_MCP_PROXY
    """,
}

REFUSED: Final = {
    "a conversation that became too long is refused, and cut by its client; leave this out": """
        --context-shift = CONTEXT_SHIFT
    """,
    "adapters are not read; merge it into the model's file before": """
        --lora F
        --lora-scaled F
        --lora-init-without-apply
    """,
    "control vectors are not read; leave this out": """
        --control-vector F
        --control-vector-scaled F
        --control-vector-layer-range A B
    """,
    "positions are counted as the model's file says; write it there (gguf-set-metadata)": """
        --rope-scaling T = ROPE_SCALING_TYPE
        --rope-scale N = ROPE_SCALE
        --rope-freq-base N = ROPE_FREQ_BASE unless 0
        --rope-freq-scale N = ROPE_FREQ_SCALE
        --yarn-orig-ctx N = YARN_ORIG_CTX unless 0
        --yarn-ext-factor N = YARN_EXT_FACTOR
        --yarn-attn-factor N = YARN_ATTN_FACTOR
        --yarn-beta-slow N = YARN_BETA_SLOW
        --yarn-beta-fast N = YARN_BETA_FAST
    """,
    "metadata is read as the file has it; write it there (gguf-set-metadata)": """
        --override-kv X
    """,
    "models are not computed on other machines; leave this out": """
        --rpc S = RPC
    """,
    "fetch the file, and give it as -m (--mmproj), or name a repository: -hf OWNER/REPO": """
        -mu --model-url U = MODEL_URL
        -mmu --mmproj-url U = MMPROJ_URL
        -dr --docker-repo R = DOCKER_REPO
        --embd-gemma-default
        --fim-qwen-1.5b-default
        --fim-qwen-3b-default
        --fim-qwen-7b-default
        --fim-qwen-7b-spec
        --fim-qwen-14b-spec
        --fim-qwen-30b-default
        --gpt-oss-20b-default
        --gpt-oss-120b-default
        --vision-gemma-4b-default
        --vision-gemma-12b-default
    """,
    "replies are always parsed; ask /completion for a text as it is": """
        --skip-chat-parsing = SKIP_CHAT_PARSING
    """,
    "special tokens are never shown in answers; leave this out": """
        -sp --special
    """,
    "thoughts are kept as the template keeps them; leave this out": """
        --reasoning-preserve = REASONING_PRESERVE
        --no-reasoning-preserve = NO_REASONING_PRESERVE
    """,
    "the parts of an infill stand in the order prefix, suffix, middle; leave this out": """
        --spm-infill
    """,
    "this server runs no tools: its clients do, with the calls that it answers": """
        --tools T = TOOLS
        --tools-runtime X = TOOLS_RUNTIME
        --mcp-servers-config F = MCP_SERVERS_CONFIG
        --mcp-servers-json J = MCP_SERVERS_JSON
        -ag --agent = AGENT
        --ui-mcp-proxy --webui-mcp-proxy = UI_MCP_PROXY
    """,
    "this server has no files of yours to show; put a web server before it": """
        --path D = STATIC_PATH
    """,
    "no prompt is ever written to a file; leave this out": """
        --log-prompts-dir D
    """,
    "llama-server has it no longer either; leave this out": """
        --draft-n --draft-max N = DRAFT_MAX
        --draft-min --draft-n-min N = DRAFT_MIN
        --spec-ngram-size-n N
        --spec-ngram-size-m N
        --spec-ngram-min-hits N
    """,
    "opsin doctor tells what there is": """
        --list-devices
        -cl --cache-list
    """,
    "there is no completion for shells": """
        --completion-bash
    """,
}

TAKEN: Final = """
    -h --help --usage
    --version
    -m --model F = MODEL
    -hf -hfr --hf-repo R = HF_REPO
    -hff --hf-file F = HF_FILE
    -mm --mmproj F = MMPROJ
    --mmproj-auto = MMPROJ_AUTO
    --no-mmproj --no-mmproj-auto = NO_MMPROJ_AUTO
    -a --alias N = ALIAS
    --tags T = TAGS
    --pooling T = POOLING
    -c --ctx-size N = CTX_SIZE
    -t --threads N = THREADS
    --spec-draft-n-max N = SPEC_DRAFT_N_MAX
    --spec-draft-model -md --model-draft --draft F = SPEC_DRAFT_MODEL
    -np --parallel N = N_PARALLEL
    -ctk --cache-type-k T = CACHE_TYPE_K
    -ctv --cache-type-v T = CACHE_TYPE_V
    --image-min-tokens N = IMAGE_MIN_TOKENS
    --image-max-tokens N = IMAGE_MAX_TOKENS
    --host H = HOST
    --port N = PORT
    --reuse-port = REUSE_PORT
    --api-prefix P = API_PREFIX
    --api-key K = API_KEY
    --api-key-file F = API_KEY_FILE
    --ssl-key-file F = SSL_KEY_FILE
    --ssl-cert-file F = SSL_CERT_FILE
    --cors-origins O = CORS_ORIGINS
    -to --timeout N = TIMEOUT
    --sse-ping-interval N = SSE_PING_INTERVAL
    --sleep-idle-seconds N
    --models-dir D = MODELS_DIR
    --models-preset F = MODELS_PRESET
    --models-max N = MODELS_MAX
    --models-autoload = MODELS_AUTOLOAD
    --no-models-autoload = NO_MODELS_AUTOLOAD
    --metrics = ENDPOINT_METRICS
    --slot-save-path D
    --slots = ENDPOINT_SLOTS
    --no-slots = NO_ENDPOINT_SLOTS
    --ui --webui = UI
    --no-ui --no-webui = NO_UI
    --media-path D
    --chat-template T = CHAT_TEMPLATE
    --chat-template-file F = CHAT_TEMPLATE_FILE
    --chat-template-kwargs J = CHAT_TEMPLATE_KWARGS
    --reasoning-format F = THINK
    -rea --reasoning X = REASONING
    --reasoning-effort L = REASONING_EFFORT
    --reasoning-budget N = THINK_BUDGET
    --reasoning-budget-message M = THINK_BUDGET_MESSAGE
    --prefill-assistant = PREFILL_ASSISTANT
    --no-prefill-assistant = NO_PREFILL_ASSISTANT
    --grammar G
    --grammar-file F
    -j --json-schema S
    -jf --json-schema-file F
    -hft --hf-token T
    --offline = OFFLINE
"""
