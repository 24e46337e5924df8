"""The special tokens, in the order of their ids: those of models/atelier-base, whose names Qwen2.5-Coder uses too."""

END = "<|endoftext|>"
FIM_PREFIX = "<|fim_prefix|>"
FIM_MIDDLE = "<|fim_middle|>"
FIM_SUFFIX = "<|fim_suffix|>"
PAD = "<|fim_pad|>"
REPO_NAME = "<|repo_name|>"
FILE_SEP = "<|file_sep|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"

SPECIAL = (END, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, PAD, REPO_NAME, FILE_SEP, IM_START, IM_END)
