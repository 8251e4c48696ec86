"""Data of public formats: readers, users split in time, next-item prompts, given semantic IDs, and the fetch of ML-100K."""

from recast_train.data.data_config import FETCHED, PROMPT_FORMATS, Cores, DataConfig, Format
from recast_train.data.data_error import DataError
from recast_train.data.interactions import (
    PAD,
    Dataset,
    Dropped,
    Prompts,
    Split,
    build_sequences,
    drop_rare,
    load_ml100k,
    prompts,
    sample_prompts,
    split_by_time,
    train_matrix,
)
from recast_train.data.made_up import write_made_up
from recast_train.data.ml100k import cached_ml100k, fetch_ml100k
from recast_train.data.readers.column_names import TableColumns
from recast_train.data.readers.given_sids import GivenSids
from recast_train.data.readers.item_text import read_titles
from recast_train.data.readers.minionerec import read_index, read_minionerec
from recast_train.data.readers.plain_table import read_table
from recast_train.data.readers.prompt_table import PromptTable
from recast_train.data.readers.recbole import read_atomic
from recast_train.data.readers.recif import BadRows, ChatRow, message_text, read_openonerec, scan_openonerec
from recast_train.data.readers.recognition import recognise
from recast_train.data.readers.sequences import read_sequences
from recast_train.data.source import Source, load_source, read_dataset, read_source
from recast_train.data.splits import SplitConfig
from recast_train.data.yoochoose import fetch_yoochoose

__all__ = [
    "FETCHED",
    "PAD",
    "PROMPT_FORMATS",
    "BadRows",
    "ChatRow",
    "Cores",
    "DataConfig",
    "DataError",
    "Dataset",
    "Dropped",
    "Format",
    "GivenSids",
    "PromptTable",
    "Prompts",
    "Source",
    "Split",
    "SplitConfig",
    "TableColumns",
    "build_sequences",
    "cached_ml100k",
    "drop_rare",
    "fetch_ml100k",
    "fetch_yoochoose",
    "load_ml100k",
    "load_source",
    "message_text",
    "prompts",
    "read_atomic",
    "read_dataset",
    "read_index",
    "read_minionerec",
    "read_openonerec",
    "read_sequences",
    "read_source",
    "read_table",
    "read_titles",
    "recognise",
    "sample_prompts",
    "scan_openonerec",
    "split_by_time",
    "train_matrix",
    "write_made_up",
]
