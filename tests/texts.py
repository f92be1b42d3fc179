"""What tests of texts share: texts that their words tell apart, and a small pretrained BERT."""

import json

import numpy as np

TOPICS = {"money": "Oil bank stock", "sport": "goal team cup", "tech": "chip code web"}

SHORT = {
    "model": "bert",
    "text_length": 8,
    "distribution": "iid",
    "forget": "class:sport",
    "pretrain_epochs": 1,
    "server_epochs": 2,
    "batch_size": 8,
}
"""Settings of a run on them of a fraction of a second, but for `dataset`."""


def few_texts(path, train=16, test=4):
    """Write so many texts of each topic, of several lengths, as a data set; return its name."""
    rng = np.random.default_rng(0)
    arrays = {"class_names": np.array(list(TOPICS))}
    for split, each in (("train", train), ("test", test)):
        y = np.repeat(np.arange(len(TOPICS)), each)
        words = [list(TOPICS.values())[label].split() for label in y]
        arrays[f"text_{split}"] = np.array(
            [" ".join(rng.choice(w, rng.integers(2, 7))) for w in words]
        )
        arrays[f"y_{split}"] = y
    np.savez(path, **arrays)
    return f"npz:{path}"


def small_bert(folder, seed=0, more_words=()):
    """Write a BERT of width 16 that knows the topics' words; return its path."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *" ".join(TOPICS.values()).lower().split(), *more_words]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = BertTokenizerFast(vocab=vocabulary)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def edit(path, **changed):
    """Change some entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
