"""Records to token ids: chat template to text, text to ids, ids to prompt and completions."""
