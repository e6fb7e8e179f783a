"""From bytes to token ids: readers, record formats, splits, chat templates, tokenising."""
